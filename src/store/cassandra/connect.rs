//! How the cluster is reached: contact points, datacenter, credentials, TLS. Everything that a session needs and nothing
//! that it does.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use scylla::client::PoolSize;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::NewSessionError;
use scylla::policies::address_translator::AddressTranslator;
use scylla::policies::load_balancing::DefaultPolicy;
use scylla::statement::{Consistency, SerialConsistency};

use super::astra;
use super::astra::bundle::Bundle;
use super::astra::tunnel::Tunnel;
use super::cause;
use super::handshake::distrust;
use crate::error::{During, Error, Result};
use crate::project::contact::with_port;
use crate::project::manifest::ServingManifest;

/// A node that does not answer within this time is not there.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);

/// A request that is not answered within this time is repeated. Longer than the nodes' own bounds (10 s for a range of
/// rows), so that their answer, which says what was missing, comes first.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(12);

/// How often nodes are asked whether they agree about the schema, after it was changed.
const SCHEMA_AGREEMENT_INTERVAL: Duration = Duration::from_millis(20);

/// The variable that holds the password; it takes precedence over a file.
pub const PASSWORD_VARIABLE: &str = "MEDALLION_CASSANDRA_PASSWORD";

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, to be handed to the one who needs it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub user: String,
    pub password: Secret,
}

/// Everything that is needed to reach a cluster.
#[derive(Clone)]
pub struct Target {
    /// `host:port`.
    pub hosts: Vec<String>,
    pub keyspace: String,
    pub datacenter: Option<String>,
    pub credentials: Option<Credentials>,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// Where to connect instead of the address that a node gives itself.
    pub translator: Option<Arc<dyn AddressTranslator>>,
    /// The bundle of an Astra database, which names the nodes in place of `hosts`.
    pub bundle: Option<Arc<Bundle>>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({}, keyspace {})", self.place(), self.keyspace)
    }
}

impl Target {
    /// Where it is, for messages.
    pub fn place(&self) -> String {
        match &self.bundle {
            Some(bundle) => format!("the Astra database at {}", bundle.host),
            None => format!("cassandra at {}", self.hosts.join(", ")),
        }
    }

    /// The database of a bundle.
    fn astra(serving: &ServingManifest, bundle: &Path) -> Result<Target> {
        let bundle = Bundle::read(bundle)?;
        Ok(Target {
            hosts: Vec::new(),
            keyspace: serving.keyspace.to_lowercase(),
            datacenter: serving.datacenter.clone(),
            credentials: Some(astra::credentials(|name| std::env::var(name).ok())?),
            tls: None,
            translator: None,
            bundle: Some(Arc::new(bundle)),
        })
    }

    /// The cluster that the project declares; `hosts` of the caller take precedence. `None` where neither names one.
    ///
    /// # Errors
    /// `Usage` where a password or certificate can't be read.
    pub fn of(serving: &ServingManifest, hosts: &[String], folder: &Path) -> Result<Option<Target>> {
        let (hosts, base) = match hosts.is_empty() {
            true => (&serving.hosts[..], folder),
            false => (hosts, Path::new("")),
        };
        if hosts.is_empty() {
            return Ok(None);
        }
        if let Some(path) = astra::bundle_path(hosts)? {
            return Self::astra(serving, &base.join(path)).map(Some);
        }
        let password = match std::env::var(PASSWORD_VARIABLE) {
            Ok(password) => Some(password),
            Err(_) => serving
                .password_file
                .as_ref()
                .map(|file| {
                    read_text(&folder.join(file)).map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                })
                .transpose()?,
        };
        let credentials = match (&serving.user, password) {
            (Some(user), Some(password)) => {
                Some(Credentials { user: user.clone(), password: Secret::new(password) })
            }
            (Some(user), None) => {
                return Err(Error::usage(format!(
                    "the password of cassandra's user `{user}` is missing: set {PASSWORD_VARIABLE} or `serving.password_file`"
                )));
            }
            (None, _) => None,
        };
        let tls = match &serving.tls_ca {
            Some(ca) => {
                let client = serving.tls_certificate.as_ref().zip(serving.tls_key.as_ref());
                let client = client.map(|(certificate, key)| (folder.join(certificate), folder.join(key)));
                Some(tls(&folder.join(ca), client)?)
            }
            None => None,
        };
        Ok(Some(Target {
            hosts: hosts.iter().map(|host| with_port(host).map_err(Error::usage)).collect::<Result<_>>()?,
            keyspace: serving.keyspace.to_lowercase(),
            datacenter: serving.datacenter.clone(),
            credentials,
            tls,
            translator: None,
            bundle: None,
        }))
    }
}

fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| Error::usage(format!("can't read `{}`", path.display())).because(error))
}

/// Encryption that trusts only `ca`. The node's certificate must name the address that we connect to.
///
/// # Errors
/// `Usage` where a file is missing or holds no certificate or key.
pub fn tls(ca: &Path, client: Option<(PathBuf, PathBuf)>) -> Result<Arc<rustls::ClientConfig>> {
    let wrong =
        |path: &Path, what: &str| Error::usage(format!("`{}` holds no {what} in PEM form", path.display()));
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>> {
        let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
            .map_err(|error| wrong(path, "certificate").because(error))?
            .collect();
        let found = found.map_err(|error| wrong(path, "certificate").because(error))?;
        if found.is_empty() {
            return Err(wrong(path, "certificate"));
        }
        Ok(found)
    };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| wrong(ca, "usable certificate").because(error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::bug("tls can't be set up").because(error))?
        .with_root_certificates(roots);
    let config = match client {
        None => builder.with_no_client_auth(),
        Some((certificate, key_file)) => {
            let key = PrivateKeyDer::from_pem_file(&key_file)
                .map_err(|error| wrong(&key_file, "private key").because(error))?;
            builder.with_client_auth_cert(certificates(&certificate)?, key).map_err(|error| {
                match certificate_fault(&error) {
                    Some(fault) => {
                        Error::usage(format!("the certificate `{}` {fault}", certificate.display()))
                    }
                    None => wrong(&certificate, "certificate that fits the key").because(error),
                }
            })?
        }
    };
    Ok(Arc::new(config))
}

/// Why a certificate of ours can't be used, where that is no matter of its key.
pub fn certificate_fault(error: &rustls::Error) -> Option<String> {
    let rustls::Error::InvalidCertificate(fault) = error else {
        return None;
    };
    // what is wrong inside is told by a crate that we do not name
    let is_old = format!("{fault:?}").contains("UnsupportedCertVersion");
    Some(match is_old {
        true => "is of X.509 version 1, and TLS takes version 3 only".to_owned(),
        false => format!("can't be used: {fault}"),
    })
}

/// Connects. The session writes and reads with `LOCAL_QUORUM`, at the replicas of what it asks for; it repeats nothing by
/// itself that was refused: that is for [`super::request`] to judge.
///
/// # Errors
/// `Unavailable` where no node can be reached, `Usage` where the nodes refuse us.
pub async fn connect(target: &Target) -> Result<Session> {
    let tunnel = match &target.bundle {
        Some(bundle) => {
            Some(Arc::new(Tunnel::open(bundle).await.during(|| format!("connecting to {}", target.place()))?))
        }
        None => None,
    };
    let near = tunnel.as_ref().and_then(|tunnel| tunnel.local_dc());
    let mut policy = DefaultPolicy::builder().token_aware(true);
    if let Some(datacenter) = target.datacenter.clone().or(near) {
        policy = policy.prefer_datacenter(datacenter);
    }
    let profile = ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(REQUEST_TIMEOUT))
        .load_balancing_policy(policy.build())
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(&target.hosts)
        .default_execution_profile_handle(profile.into_handle())
        .connection_timeout(CONNECTION_TIMEOUT)
        .pool_size(PoolSize::PerHost(NonZeroUsize::MIN))
        // what routing needs and no more
        .keyspaces_to_fetch([target.keyspace.clone()])
        .fetch_full_schema_metadata(false)
        // who changes the schema looks at it again once, at the end
        .schema_agreement_interval(SCHEMA_AGREEMENT_INTERVAL)
        .refresh_metadata_on_auto_schema_agreement(false)
        .tls_context(target.tls.clone());
    if let Some(Credentials { user, password }) = &target.credentials {
        builder = builder.user(user, password.reveal());
    }
    if let Some(translator) = &target.translator {
        builder = builder.address_translator(Arc::clone(translator));
    }
    if let Some(tunnel) = &tunnel {
        builder = builder.known_nodes_addr(&tunnel.entrances).address_translator(Arc::clone(tunnel) as _);
    }
    match builder.build().await {
        Ok(session) => Ok(session),
        Err(error) => Err(refusal(target, tunnel.as_deref(), &error).await),
    }
}

/// Why nobody let us in.
async fn refusal(target: &Target, tunnel: Option<&Tunnel>, error: &NewSessionError) -> Error {
    let place = target.place();
    if let Some(failure) = tunnel.and_then(Tunnel::failure) {
        return Error::unavailable(format!("can't connect to {place}")).because(failure);
    }
    if cause::is_anonymous(error) {
        return Error::usage(format!(
            "{place} asks who we are: name `serving.user` in `medallion.toml`, and give its password in {PASSWORD_VARIABLE} or `serving.password_file`"
        ));
    }
    let text = error.to_string();
    if ["uthentication", "assword"].iter().any(|word| text.contains(word)) {
        return Error::usage(format!("{place} refuses the user and the password"))
            .because(cause::of_session(error));
    }
    if let Some(tls) = &target.tls
        && let Some(distrust) = distrust(&target.hosts, tls).await
    {
        return Error::usage(format!("{place} and this side do not trust each other's certificates"))
            .because(distrust);
    }
    Error::unavailable(format!("can't connect to {place}")).because(cause::of_session(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_shown() {
        let credentials = Credentials { user: "u".to_owned(), password: Secret::new("canary".to_owned()) };
        assert!(!format!("{credentials:?}").contains("canary"));
    }
}
