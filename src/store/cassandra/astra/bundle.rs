//! A secure connect bundle: the zip file that Astra gives for a database. It names the database's host and holds an
//! authority (`ca.crt`), our certificate (`cert`) and its key (`key`).
//!
//! It is read in memory and never unpacked to disk. Whatever is wrong with it is said of the part that is wrong; what it
//! contains is never shown.

use std::fmt;
use std::io::{Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use serde_json::Value;
use zip::ZipArchive;
use zip::result::ZipError;

use super::super::connect::certificate_fault;
use crate::error::{Error, Result};

/// Bundles are of about 12 KiB; what is larger is something else.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
const MAX_PART_BYTES: u64 = 1024 * 1024;

/// Some editors begin a file with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What is needed to reach a database.
pub struct Bundle {
    /// The database's name in the network, which every certificate of it must bear.
    pub host: String,
    /// Where the metadata service listens on that host.
    pub port: u16,
    /// The region's datacenter, where the bundle says it.
    pub local_dc: Option<String>,
    roots: Arc<RootCertStore>,
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({}:{})", self.host, self.port)
    }
}

impl Bundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// `Usage`, with the part that is missing, damaged or expired.
    pub fn read(path: &Path) -> Result<Bundle> {
        let of_bundle = |error: Error| error.during(format!("secure connect bundle `{}`", path.display()));
        let unreadable = |error| of_bundle(Error::usage("can't be read").because(error));
        // opening a pipe would wait for whoever writes to it
        if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
            return Err(of_bundle(Error::usage("is no regular file")));
        }
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(of_bundle(Error::usage("it is too large to be a bundle")));
        }
        Self::from_bytes(&bytes).map_err(of_bundle)
    }

    /// As [`Bundle::read`], from the bytes of the zip file.
    ///
    /// # Errors
    /// As [`Bundle::read`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Bundle> {
        let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(|error| {
            Error::usage("it is no zip file, or only a part of one; download it again").because(error)
        })?;
        let (host, port, local_dc) = read_config(&part(&mut archive, "config.json")?)?;

        let mut roots = RootCertStore::empty();
        for certificate in certificates("ca.crt", &part(&mut archive, "ca.crt")?)? {
            roots
                .add(certificate)
                .map_err(|error| wrong("ca.crt", "holds no usable certificate").because(error))?;
        }
        let certificates = certificates("cert", &part(&mut archive, "cert")?)?;
        let key = private_key(&part(&mut archive, "key")?)?;
        let bundle = Bundle { host, port, local_dc, roots: Arc::new(roots), certificates, key };
        bundle.check_validity()?;
        // whether the key belongs to the certificate
        bundle.metadata_tls()?;
        Ok(bundle)
    }

    /// Whether the certificate is valid today. Servers refuse it where it is not, but they do not say when it ended.
    fn check_validity(&self) -> Result<()> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .build()
            .map_err(|error| wrong("ca.crt", "can't vouch for anybody").because(error))?;
        let Some((first, rest)) = self.certificates.split_first() else {
            return Err(wrong("cert", "holds no certificate"));
        };
        let day = |time: UnixTime| {
            let seconds = i64::try_from(time.as_secs()).ok();
            seconds
                .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
                .map(|time| time.format("%F").to_string())
        };
        match verifier.verify_client_cert(first, rest, UnixTime::now()) {
            Err(rustls::Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => {
                let ended = day(not_after).map(|day| format!(" on {day}")).unwrap_or_default();
                Err(wrong("cert", &format!("expired{ended}; download a new bundle")))
            }
            Err(rustls::Error::InvalidCertificate(CertificateError::Expired)) => {
                Err(wrong("cert", "has expired; download a new bundle"))
            }
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            )) => Err(wrong("cert", "is not valid yet; is this machine's clock right?")),
            // everything else is for the servers to judge
            _ => Ok(()),
        }
    }

    /// TLS for the metadata service, whose certificate must bear the name that we connect to.
    ///
    /// # Errors
    /// `Usage` where the key does not belong to the certificate.
    pub fn metadata_tls(&self) -> Result<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::bug("tls can't be set up").because(error))?
            .with_root_certificates(Arc::clone(&self.roots));
        self.with_identity(builder)
    }

    /// TLS for nodes: the name that we ask for is a host id, the name that the certificate must bear is the bundle's host.
    ///
    /// # Errors
    /// As [`Bundle::metadata_tls`].
    pub fn node_tls(&self) -> Result<ClientConfig> {
        let wrong_host = |error| wrong("config.json", "`host` is no name of a host").because(error);
        let host = ServerName::try_from(self.host.clone()).map_err(wrong_host)?;
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider())
            .build()
            .map_err(|error| wrong("ca.crt", "can't vouch for anybody").because(error))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::bug("tls can't be set up").because(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OfHost { chain, host }));
        self.with_identity(builder)
    }

    fn with_identity(
        &self,
        builder: rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>,
    ) -> Result<ClientConfig> {
        builder.with_client_auth_cert(self.certificates.clone(), self.key.clone_key()).map_err(|error| {
            match certificate_fault(&error) {
                Some(fault) => wrong("cert", &format!("{fault}; download a new bundle")),
                None => wrong("key", "does not belong to the certificate `cert`").because(error),
            }
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn wrong(part: &str, what: &str) -> Error {
    Error::usage(format!("its part `{part}` {what}"))
}

fn part(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str) -> Result<Vec<u8>> {
    let mut file = archive.by_name(name).map_err(|error| match error {
        ZipError::FileNotFound => wrong(name, "is missing; is this the whole bundle, as it was downloaded?"),
        ZipError::UnsupportedArchive(ZipError::PASSWORD_REQUIRED) | ZipError::InvalidPassword => {
            wrong(name, "is locked with a password; bundles of Astra are not: download it again")
        }
        error => wrong(name, "is damaged; download the bundle again").because(error),
    })?;
    let mut bytes = Vec::new();
    (&mut file)
        .take(MAX_PART_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| wrong(name, "is damaged; download the bundle again").because(error))?;
    if bytes.len() as u64 > MAX_PART_BYTES {
        return Err(wrong(name, "is too large"));
    }
    Ok(bytes)
}

/// Host, port and datacenter.
fn read_config(bytes: &[u8]) -> Result<(String, u16, Option<String>)> {
    // the file holds passwords of its own: an error must not quote it
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    let config: Value = serde_json::from_slice(bytes).map_err(|error| {
        let place = format!("line {}, column {}", error.line(), error.column());
        wrong("config.json", &format!("is no JSON ({place}); download the bundle again"))
    })?;
    let text = |name: &str| config.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let host = text("host").ok_or_else(|| wrong("config.json", "names no `host`"))?;
    if ServerName::try_from(host).is_err() {
        return Err(wrong("config.json", "has a `host` that is no name of a host"));
    }
    let port = match config.get("port") {
        None | Some(Value::Null) => return Err(wrong("config.json", "names no `port`")),
        Some(Value::String(port)) => port.parse().ok(),
        Some(port) => port.as_u64().and_then(|port| u16::try_from(port).ok()),
    };
    let port = port.filter(|port| *port > 0);
    let port = port.ok_or_else(|| wrong("config.json", "has a `port` that is no number from 1 to 65535"))?;
    Ok((host.to_owned(), port, text("localDC").map(str::to_owned)))
}

fn certificates(name: &str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let found = found.map_err(|error| wrong(name, "is damaged; download the bundle again").because(error))?;
    match found.is_empty() {
        true => Err(wrong(name, "holds no certificate in PEM form")),
        false => Ok(found),
    }
}

fn private_key(bytes: &[u8]) -> Result<PrivateKeyDer<'static>> {
    let holds = |text: &str| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    if holds("BEGIN ENCRYPTED PRIVATE KEY") || holds("Proc-Type: 4,ENCRYPTED") {
        return Err(wrong("key", "is locked with a password; bundles of Astra are not: download it again"));
    }
    PrivateKeyDer::from_pem_slice(bytes)
        .map_err(|error| wrong("key", "holds no private key in PEM form").because(error))
}

/// Judges a certificate by the authority and a fixed host, whatever name was asked for.
#[derive(Debug)]
struct OfHost {
    chain: Arc<WebPkiServerVerifier>,
    host: ServerName<'static>,
}

impl ServerCertVerifier for OfHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _asked_for: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        self.chain.verify_server_cert(end_entity, intermediates, &self.host, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
