//! One request to somebody outside: TLS verified, no redirect followed, bounded in time, tried again where that can help.
//! A URL may be a secret: nothing that is said here holds more of it than its scheme and host.

use std::fmt;
use std::time::Duration;

use url::Url;

use crate::error::{Error, Result};

/// One attempt, from connecting to the answer's end.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Waits before the second and the third attempt.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];

/// A URL that is not shown.
#[derive(Clone)]
pub struct SecretUrl(Url);

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a url")
    }
}

impl SecretUrl {
    /// # Errors
    /// What is wrong with it, without repeating it.
    pub fn parse(text: &str) -> std::result::Result<SecretUrl, String> {
        let url = Url::parse(text.trim()).map_err(|error| format!("holds no url ({error})"))?;
        match url.scheme() {
            "https" | "http" if url.has_host() => Ok(SecretUrl(url)),
            _ => Err("holds no url that begins with `https://` or `http://`".to_owned()),
        }
    }
}

/// A URL without what may be secret in it: user, password, query.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Sends requests. Made when the first one is to be sent: certificates take memory.
pub struct Client(reqwest::Client);

impl Client {
    /// # Errors
    /// `Bug` where TLS can't be set up.
    pub fn new() -> Result<Client> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .user_agent(concat!("medallion/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::bug("https can't be set up").because(error.without_url()))?;
        Ok(Client(client))
    }

    /// Sends JSON; three attempts where the trouble may be over soon.
    ///
    /// # Errors
    /// Why it was not taken, in words that can be shown.
    pub async fn post(
        &self,
        url: &SecretUrl,
        body: &str,
        bearer: Option<&str>,
    ) -> std::result::Result<(), String> {
        let mut waits = BACKOFF.iter();
        loop {
            let (why, may_pass) = match self.attempt(url, body, bearer).await {
                Ok(()) => return Ok(()),
                Err(failed) => failed,
            };
            match waits.next().filter(|_| may_pass) {
                None => return Err(why),
                Some(wait) => tokio::time::sleep(*wait).await,
            }
        }
    }

    async fn attempt(
        &self,
        url: &SecretUrl,
        body: &str,
        bearer: Option<&str>,
    ) -> std::result::Result<(), (String, bool)> {
        let mut request = self.0.post(url.0.clone()).header("content-type", "application/json");
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        let answer = request.body(body.to_owned()).send().await;
        match answer {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status();
                let may_pass = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
                Err((format!("it answers {status}"), may_pass))
            }
            Err(error) if error.is_timeout() => {
                Err((format!("it does not answer within {} s", TIMEOUT.as_secs()), true))
            }
            Err(error) => Err((explained(error, url), true)),
        }
    }
}

/// The innermost cause, which names no path.
fn explained(error: reqwest::Error, url: &SecretUrl) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    let mut text = cause.to_string();
    let secrets =
        [url.0.path(), url.0.query().unwrap_or(""), url.0.username(), url.0.password().unwrap_or("")];
    for secret in secrets.into_iter().filter(|secret| secret.len() > 1) {
        text = text.replace(secret, "…");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_it() {
        for wrong in ["", "hooks.slack.com/services/T0/B0/secret", "ftp://host/secret", "https:///secret"] {
            let told = SecretUrl::parse(wrong).map(|_| ()).unwrap_err();
            assert!(!told.contains("secret"), "{told}");
        }
        assert_eq!(format!("{:?}", SecretUrl::parse(" https://h/secret\n").unwrap()), "a url");
        let url = Url::parse("s3://key:secret@bucket/lake?sig=secret").unwrap();
        assert_eq!(shown(&url), "s3://bucket/lake");
    }
}
