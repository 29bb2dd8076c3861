//! DataStax Astra: Cassandra behind a proxy, reached with a secure connect bundle and a token.
//!
//! No driver for Rust speaks to that proxy. So the driver speaks plain CQL to listeners of ours ([`tunnel`]), which carry
//! it on as the bundle ([`bundle`]) and the database's metadata service ([`metadata`]) say. How this was proven and what
//! was not: `docs/astra.md`.

pub mod bundle;
pub mod metadata;
pub mod tunnel;

use std::error::Error as StdError;
use std::path::{Path, PathBuf};

use rustls::{AlertDescription, CertificateError};

use super::connect::{Credentials, Secret};
use crate::error::{Error, Result};

/// A token, `AstraCS:…`.
pub const TOKEN_VARIABLE: &str = "MEDALLION_ASTRA_TOKEN";
/// A file that holds the token.
pub const TOKEN_FILE_VARIABLE: &str = "MEDALLION_ASTRA_TOKEN_FILE";
/// The older pair in place of a token.
pub const CLIENT_ID_VARIABLE: &str = "MEDALLION_ASTRA_CLIENT_ID";
pub const SECRET_VARIABLE: &str = "MEDALLION_ASTRA_CLIENT_SECRET";
/// A file that holds the secret of the client id.
pub const SECRET_FILE_VARIABLE: &str = "MEDALLION_ASTRA_CLIENT_SECRET_FILE";

/// The user of whoever has a token.
const TOKEN_USER: &str = "token";
const PREFIX: &str = "astra:";

/// The bundle that stands in place of nodes: `astra:PATH`.
///
/// # Errors
/// `Usage` where it stands beside nodes or names no file.
pub fn bundle_path(hosts: &[String]) -> Result<Option<PathBuf>> {
    let mut paths = hosts.iter().filter_map(|host| host.strip_prefix(PREFIX));
    match (paths.next(), hosts.len()) {
        (None, _) => Ok(None),
        (Some(""), _) => {
            Err(Error::usage("`astra:` needs the path of a secure connect bundle: `astra:PATH.zip`"))
        }
        (Some(path), 1) => Ok(Some(Path::new(path).to_path_buf())),
        (Some(_), _) => Err(Error::usage("`astra:PATH.zip` stands alone: the bundle names the nodes")),
    }
}

/// Who we are, from the environment or from files that it names.
///
/// # Errors
/// `Usage` where nothing says it, or a file can't be read.
pub fn credentials(variable: impl Fn(&str) -> Option<String>) -> Result<Credentials> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let secret = |name: &str, file_name: &str| match (variable(name), variable(file_name)) {
        (Some(text), _) => Ok(Some(text.trim().to_owned())),
        (None, Some(path)) => {
            std::fs::read_to_string(&path).map(|text| Some(text.trim().to_owned())).map_err(|error| {
                Error::usage(format!("can't read `{path}`, which {file_name} names")).because(error)
            })
        }
        (None, None) => Ok(None),
    };
    if let Some(token) = secret(TOKEN_VARIABLE, TOKEN_FILE_VARIABLE)? {
        if !token.starts_with("AstraCS:") {
            return Err(Error::usage(format!(
                "what {TOKEN_VARIABLE} or its file holds is no token: tokens begin with `AstraCS:`"
            )));
        }
        return Ok(Credentials { user: TOKEN_USER.to_owned(), password: Secret::new(token) });
    }
    match (variable(CLIENT_ID_VARIABLE), secret(SECRET_VARIABLE, SECRET_FILE_VARIABLE)?) {
        (Some(user), Some(password)) => Ok(Credentials { user, password: Secret::new(password) }),
        (Some(_), None) => Err(Error::usage(format!(
            "the secret of {CLIENT_ID_VARIABLE} is missing: set {SECRET_VARIABLE} or {SECRET_FILE_VARIABLE}"
        ))),
        (None, _) => Err(Error::usage(format!(
            "an Astra database needs a token: set {TOKEN_VARIABLE}, or {TOKEN_FILE_VARIABLE} to a file that holds it (or {CLIENT_ID_VARIABLE} and {SECRET_VARIABLE})"
        ))),
    }
}

/// Where a keyspace comes from.
pub fn no_keyspace(keyspace: &str, place: &str) -> Error {
    Error::usage(format!(
        "there is no keyspace `{keyspace}` in {place}, and Astra creates none by CQL: create it at https://astra.datastax.com (the database, then \"Create keyspace\"), then try again"
    ))
}

/// What went wrong on the way to `host`, in the words of who has a bundle at hand.
fn explain(error: &(dyn StdError + 'static), host: &str, what: String) -> Error {
    let Some(tls) = tls_error(error) else {
        return Error::unavailable(what).because(whole_text(error));
    };
    let why = match tls {
        rustls::Error::InvalidCertificate(invalid) => match invalid {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the server's certificate has expired".to_owned()
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the server's certificate was not signed by the bundle's `ca.crt`".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("the server's certificate is not for the bundle's host `{host}`")
            }
            _ => "the server's certificate is not valid".to_owned(),
        },
        rustls::Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            return Error::unavailable(format!("{what}: the proxy knows no such node"));
        }
        rustls::Error::AlertReceived(alert) => {
            format!("the server refuses the bundle's certificate `cert` ({alert:?}); download a new bundle")
        }
        _ => "the server does not speak TLS as expected".to_owned(),
    };
    Error::usage(format!("{what}: {why}")).because(tls.to_string())
}

/// The TLS error that caused this one; an `io::Error` hides what it was made of.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let inside = error.downcast_ref::<std::io::Error>().and_then(|error| error.get_ref());
        next = match inside {
            Some(inside) => Some(inside as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// The error with its causes; some crates' errors say only the outermost.
fn whole_text(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_stands_in_place_of_nodes() {
        let path =
            |hosts: &[&str]| bundle_path(&hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>());
        assert_eq!(path(&["db1:9042", "db2"]).unwrap(), None);
        assert_eq!(path(&["astra:a/b.zip"]).unwrap(), Some(PathBuf::from("a/b.zip")));
        assert!(path(&["astra:"]).is_err());
        assert!(path(&["db1", "astra:b.zip"]).is_err());
    }

    #[test]
    fn credentials_come_from_the_environment_or_files() {
        let given = |set: &[(&str, &str)]| {
            let set: Vec<(String, String)> =
                set.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            credentials(move |name| {
                set.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
            })
        };
        let token = given(&[(TOKEN_VARIABLE, "AstraCS:canary\n")]).unwrap();
        assert_eq!((token.user.as_str(), token.password.reveal()), ("token", "AstraCS:canary"));
        let pair = given(&[(CLIENT_ID_VARIABLE, "id"), (SECRET_VARIABLE, "canary")]).unwrap();
        assert_eq!((pair.user.as_str(), pair.password.reveal()), ("id", "canary"));
        let told = |set: &[(&str, &str)]| given(set).unwrap_err().to_string();
        assert!(told(&[]).contains(TOKEN_VARIABLE));
        let no_token = told(&[(TOKEN_VARIABLE, "canary")]);
        assert!(no_token.contains("AstraCS:") && !no_token.contains("canary"), "{no_token}");
        assert!(told(&[(TOKEN_FILE_VARIABLE, "/no/such/file")]).contains("/no/such/file"));
        assert!(told(&[(CLIENT_ID_VARIABLE, "id")]).contains(SECRET_VARIABLE));
    }
}
