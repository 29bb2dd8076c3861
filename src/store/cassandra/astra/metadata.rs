//! The metadata service says which nodes a database has now, and through which proxy they are reached.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use uuid::Uuid;

use super::bundle::Bundle;
use super::{explain, tls_error};
use crate::error::{Error, Result};
use crate::store::cassandra::handshake::distrust_of;

const TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BYTES: usize = 1024 * 1024;

/// The nodes of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    pub local_dc: Option<String>,
    /// `host:port` of the proxy that all nodes are behind.
    pub proxy: String,
    /// Never empty.
    pub nodes: Vec<Uuid>,
}

#[derive(Deserialize)]
struct Answer {
    contact_info: ContactInfo,
}

#[derive(Deserialize)]
struct ContactInfo {
    #[serde(rename = "type")]
    kind: String,
    local_dc: Option<String>,
    sni_proxy_address: String,
    contact_points: Vec<Uuid>,
}

/// Asks the metadata service.
pub struct Service {
    client: reqwest::Client,
    url: String,
    host: String,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
}

impl Service {
    /// # Errors
    /// `Usage` where the bundle's identity can't be used.
    pub fn of(bundle: &Bundle) -> Result<Service> {
        let tls = bundle.metadata_tls()?;
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .https_only(true)
            // the nodes are not reached through one either
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| Error::bug("https can't be set up").because(error))?;
        let url = format!("https://{}:{}/metadata", bundle.host, bundle.port);
        Ok(Service { client, url, host: bundle.host.clone(), port: bundle.port, tls: Arc::new(tls) })
    }

    /// # Errors
    /// `Usage` where the service is not what the bundle vouches for or refuses the bundle, `Unavailable` otherwise.
    pub async fn fetch(&self) -> Result<Metadata> {
        let what = || format!("can't reach Astra's metadata service at {}", self.url);
        let failed = |error: reqwest::Error| explain(&error, &self.host, what());
        let mut response = match self.client.get(&self.url).send().await {
            Ok(response) => response,
            // it may have hung up while we spoke, before its reason was read
            Err(error) if tls_error(&error).is_none() && !error.is_timeout() => {
                let place = format!("{}:{}", self.host, self.port);
                return Err(match distrust_of(&place, Some(&self.host), &self.tls).await {
                    Some(reason) => explain(&reason, &self.host, what()),
                    None => failed(error),
                });
            }
            Err(error) => return Err(failed(error)),
        };
        if !response.status().is_success() {
            return Err(Error::unavailable(format!(
                "the metadata service of Astra at {} answers {}; is the database active? A hibernated one is resumed at https://astra.datastax.com",
                self.url,
                response.status()
            )));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_BYTES {
                return Err(self.strange("its answer is too large"));
            }
        }
        self.read(&body)
    }

    fn strange(&self, what: &str) -> Error {
        Error::unavailable(format!("the metadata service of Astra at {}: {what}", self.url))
    }

    fn read(&self, body: &[u8]) -> Result<Metadata> {
        let answer: Answer = serde_json::from_slice(body)
            .map_err(|error| self.strange("its answer is not understood").because(error))?;
        let info = answer.contact_info;
        if info.kind != "sni_proxy" {
            return Err(self
                .strange(&format!("it offers a connection by `{}`, only `sni_proxy` is known", info.kind)));
        }
        if info.contact_points.is_empty() {
            return Err(self.strange("it names no node"));
        }
        if info.sni_proxy_address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
            return Err(self.strange("the proxy that it names has no port"));
        }
        Ok(Metadata {
            local_dc: info.local_dc.filter(|name| !name.is_empty()),
            proxy: info.sni_proxy_address,
            nodes: info.contact_points,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Metadata> {
        let service = Service {
            client: reqwest::Client::new(),
            url: "https://db:1/metadata".to_owned(),
            host: "db".to_owned(),
            port: 1,
            tls: Arc::new(
                rustls::ClientConfig::builder_with_provider(
                    rustls::crypto::aws_lc_rs::default_provider().into(),
                )
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
            ),
        };
        service.read(body.as_bytes())
    }

    const NODE: &str = "9c8b7a6d-0001-4000-8000-000000000001";

    #[test]
    fn an_answer_is_understood() {
        let body = format!(
            r#"{{"version": 1, "region": "r", "contact_info": {{"type": "sni_proxy", "local_dc": "dc-1",
                "sni_proxy_address": "proxy:29042", "contact_points": ["{NODE}"]}}}}"#
        );
        let metadata = read(&body).unwrap();
        assert_eq!(metadata.local_dc.as_deref(), Some("dc-1"));
        assert_eq!((metadata.proxy.as_str(), metadata.nodes.len()), ("proxy:29042", 1));
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let told = |body: &str| read(body).unwrap_err().to_string();
        let with = |kind: &str, proxy: &str, node: &str| {
            told(&format!(
                r#"{{"contact_info": {{"type": "{kind}", "sni_proxy_address": "{proxy}", "contact_points": [{node}]}}}}"#
            ))
        };
        assert!(told("<html>").contains("not understood"));
        assert!(told("{}").contains("contact_info"));
        assert!(with("private_link", "p:1", "").contains("`private_link`"));
        assert!(with("sni_proxy", "p:1", "").contains("names no node"));
        assert!(with("sni_proxy", "p", &format!("\"{NODE}\"")).contains("no port"));
        assert!(with("sni_proxy", "p:1", "\"node\"").contains("not understood"));
    }
}
