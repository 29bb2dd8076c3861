use std::io::Write;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use super::*;

struct Parts {
    config: String,
    ca: String,
    cert: String,
    key: String,
}

fn parts(last_year: i32) -> Parts {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "an authority");
    let authority_key = KeyPair::generate().unwrap();
    let ca = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let mut client = CertificateParams::new(vec!["client".to_owned()]).unwrap();
    client.not_before = date_time_ymd(2020, 1, 1);
    client.not_after = date_time_ymd(last_year, 12, 31);
    let cert = client.signed_by(&key, &issuer).unwrap().pem();
    let config =
        r#"{"host": "db.example.org", "port": 29080, "localDC": "dc-1", "keyStorePassword": "canary"}"#;
    Parts { config: config.to_owned(), ca, cert, key: key.serialize_pem() }
}

fn zipped(files: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in files {
        writer.start_file(*name, SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn bytes(parts: &Parts) -> Vec<u8> {
    zipped(&[
        ("config.json", &parts.config),
        ("ca.crt", &parts.ca),
        ("cert", &parts.cert),
        ("key", &parts.key),
        ("cqlshrc", "ignored"),
    ])
}

fn refused(bytes: &[u8]) -> String {
    let error = Bundle::from_bytes(bytes).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Usage);
    let text = error.to_string();
    assert!(!text.contains("canary"), "{text}");
    text
}

#[test]
fn a_whole_bundle_is_read() {
    let bundle = Bundle::from_bytes(&bytes(&parts(2099))).unwrap();
    assert_eq!((bundle.host.as_str(), bundle.port), ("db.example.org", 29080));
    assert_eq!(bundle.local_dc.as_deref(), Some("dc-1"));
    bundle.node_tls().unwrap();
    assert!(!format!("{bundle:?}").contains("canary"));
}

#[test]
fn a_port_may_be_a_text() {
    let mut parts = parts(2099);
    parts.config = r#"{"host": "db", "port": "1234"}"#.to_owned();
    assert_eq!(Bundle::from_bytes(&bytes(&parts)).unwrap().port, 1234);
}

#[test]
fn what_is_no_zip_file_is_refused() {
    assert!(refused(b"").contains("no zip file"));
    assert!(refused(b"<html>sign in</html>").contains("no zip file"));
    let whole = bytes(&parts(2099));
    // wherever it was cut
    for length in (0..whole.len()).step_by(97) {
        refused(&whole[..length]);
    }
}

#[test]
fn a_missing_part_is_named() {
    let parts = parts(2099);
    let all =
        [("config.json", &parts.config), ("ca.crt", &parts.ca), ("cert", &parts.cert), ("key", &parts.key)];
    for missing in all {
        let rest: Vec<(&str, &str)> = all
            .iter()
            .filter(|part| part.0 != missing.0)
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        assert!(refused(&zipped(&rest)).contains(&format!("part `{}` is missing", missing.0)));
    }
}

/// As `zip --encrypt` marks what it has locked: bit 0 of the flags of every entry, locally and in the directory.
#[test]
fn a_locked_archive_is_told_from_a_damaged_one() {
    let mut locked = bytes(&parts(2099));
    for at in 0..locked.len() - 10 {
        match &locked[at..at + 4] {
            b"PK\x03\x04" => locked[at + 6] |= 1,
            b"PK\x01\x02" => locked[at + 8] |= 1,
            _ => {}
        }
    }
    assert!(refused(&locked).contains("part `config.json` is locked with a password"));
}

#[test]
fn a_damaged_part_is_named() {
    let with = |change: fn(&mut Parts)| {
        let mut parts = parts(2099);
        change(&mut parts);
        refused(&bytes(&parts))
    };
    assert!(with(|parts| parts.config = "canary".to_owned()).contains("`config.json` is no JSON"));
    assert!(with(|parts| parts.config = "{}".to_owned()).contains("names no `host`"));
    assert!(with(|parts| parts.config = r#"{"host": "db", "port": 0}"#.to_owned()).contains("`port`"));
    assert!(with(|parts| parts.config = r#"{"host": "db", "port": 70000}"#.to_owned()).contains("`port`"));
    assert!(with(|parts| parts.ca = "canary".to_owned()).contains("`ca.crt` holds no certificate"));
    assert!(with(|parts| parts.cert.truncate(300)).contains("`cert`"));
    assert!(with(|parts| parts.key.truncate(60)).contains("`key` holds no private key"));
    assert!(with(|parts| parts.key = parts.cert.clone()).contains("`key` holds no private key"));
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    assert!(with(|parts| parts.key = "".to_owned()).contains("`key`"));
    let mut parts = parts(2099);
    parts.key = locked.to_owned();
    assert!(refused(&bytes(&parts)).contains("`key` is locked with a password"));
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let mut mixed = parts(2099);
    mixed.key = parts(2099).key;
    assert!(refused(&bytes(&mixed)).contains("`key` does not belong to the certificate"));
}

/// A certificate as old tools make it, of version 1.
const OLD_CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\n\
MIIBHjCBxQIUea8V7SNnWPSEiwFepEzhvGUoUMMwCgYIKoZIzj0EAwIwETEPMA0G\n\
A1UEAwwGY2xpZW50MCAXDTI2MTEyMTIxMTIxOVoYDzIxMjYxMDI4MjExMjE5WjAR\n\
MQ8wDQYDVQQDDAZjbGllbnQwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATn/sG5\n\
8QpUIrESx84oW89B+Y/MoMK9t4t/YbZMJ9uML0RMC88DyCuZDd9i475G+EaMDEI7\n\
4+3tbJ7EiZfcq638MAoGCCqGSM49BAMCA0gAMEUCIQDqDhpAJlff4I68sIhh0+Vk\n\
SDA55iBxM5qgNe9MV5H78wIgUMLAFs/9f1Bp7XaE/sT3cxbfUuWGpdUBdATBoMmT\n\
Dl0=\n\
-----END CERTIFICATE-----\n";

#[test]
fn a_certificate_of_version_1_is_named() {
    let mut old = parts(2099);
    old.cert = OLD_CERTIFICATE.to_owned();
    let told = refused(&bytes(&old));
    assert!(told.contains("`cert` is of X.509 version 1, and TLS takes version 3 only"), "{told}");
    assert!(!told.contains("`key`") && !told.contains("Other"), "{told}");
}

#[test]
fn a_config_is_read_as_editors_leave_it() {
    for change in [
        |config: &str| format!("\u{feff}{config}"),
        |config: &str| config.replace(", ", ",\r\n"),
        |config: &str| format!("{config}\r\n\r\n"),
    ] {
        let mut parts = parts(2099);
        parts.config = change(&parts.config);
        assert_eq!(Bundle::from_bytes(&bytes(&parts)).unwrap().host, "db.example.org");
    }
}

#[test]
fn a_host_and_a_port_must_be_ones() {
    let told = |config: &str| {
        let mut parts = parts(2099);
        parts.config = config.to_owned();
        refused(&bytes(&parts))
    };
    for host in ["https://db.example.org", "db.example.org:29080", "db/x", "a b", "-", "user@db"] {
        let text = told(&format!(r#"{{"host": "{host}", "port": 1}}"#));
        assert!(text.contains("`host` that is no name of a host"), "{host}: {text}");
    }
    for port in ["99999", "0", "-1", "1.5", r#""canary""#, r#""70000""#, "true", "[1]"] {
        let text = told(&format!(r#"{{"host": "db", "port": {port}}}"#));
        assert!(text.contains("`port` that is no number from 1 to 65535"), "{port}: {text}");
    }
    for config in [r#"{"host": "db"}"#, r#"{"host": "db", "port": null}"#] {
        assert!(told(config).contains("names no `port`"));
    }
    for config in ["[]", "1", r#"{"host": 5, "port": 1}"#, r#"{"host": "", "port": 1}"#] {
        assert!(told(config).contains("names no `host`"));
    }
    let text = told("{\n  \"host\": canary\n}");
    assert!(text.contains("is no JSON (line 2, column 11)"), "{text}");
}

#[test]
fn parts_in_other_places_are_missing() {
    let parts = parts(2099);
    for folder in ["bundle/", "../", "/", "./"] {
        let config = format!("{folder}config.json");
        let files = [(config.as_str(), &*parts.config), ("ca.crt", &parts.ca), ("cert", &parts.cert)];
        assert!(refused(&zipped(&files)).contains("part `config.json` is missing"), "{folder}");
    }
}

#[test]
fn a_link_is_not_followed() {
    let parts = parts(2099);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in [("config.json", &parts.config), ("ca.crt", &parts.ca), ("cert", &parts.cert)] {
        writer.start_file(name, SimpleFileOptions::default()).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    writer.add_symlink("key", "/etc/hostname", SimpleFileOptions::default()).unwrap();
    let told = refused(&writer.finish().unwrap().into_inner());
    assert!(told.contains("`key` holds no private key"), "{told}");
}

#[test]
fn of_two_parts_with_one_name_the_last_counts() {
    let parts = parts(2099);
    let twice = zipped(&[
        ("config.json", &parts.config),
        ("config.jso2", r#"{"host": "elsewhere.example.org", "port": 1}"#),
        ("ca.crt", &parts.ca),
        ("cert", &parts.cert),
        ("key", &parts.key),
    ]);
    let mut same = twice.clone();
    for at in 0..twice.len() {
        if twice[at..].starts_with(b"config.jso2") {
            same[at..at + 11].copy_from_slice(b"config.json");
        }
    }
    // as with every other reader of zip files
    assert_eq!(Bundle::from_bytes(&same).unwrap().host, "elsewhere.example.org");
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let told = |path: &Path| Bundle::read(path).unwrap_err().to_string();
    assert!(told(folder.path()).contains("is no regular file"));
    assert!(told(&at("nothing.zip")).contains("can't be read"));
    std::fs::write(at("good.zip"), bytes(&parts(2099))).unwrap();
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(at("good.zip"), at("link.zip")).unwrap();
        Bundle::read(&at("link.zip")).unwrap();
        std::os::unix::fs::symlink(at("loop.zip"), at("loop.zip")).unwrap();
        assert!(told(&at("loop.zip")).contains("can't be read"));
    }
    std::fs::write(at("large.zip"), vec![0; 17 * 1024 * 1024]).unwrap();
    assert!(told(&at("large.zip")).contains("too large"));
}

#[test]
fn an_expired_bundle_says_since_when() {
    let told = refused(&bytes(&parts(2021)));
    assert!(told.contains("`cert` expired on 2021-12-31"), "{told}");
}

#[test]
fn flipped_bytes_are_never_a_panic() {
    let whole = bytes(&parts(2099));
    for at in (0..whole.len()).step_by(41) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        let _ = Bundle::from_bytes(&damaged);
    }
}
