//! One request to somebody outside: TLS verified, no redirect followed, bounded in time, tried again where that can help.
//! A URL may be a secret: nothing that is said here holds more of it than its scheme and host.

use std::fmt;
use std::time::Duration;

use url::Url;

use crate::error::{Error, Result};
use crate::telemetry::innermost;

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

/// A URL without what may be secret in it: user and password, query. A user without a password is none: of
/// `abfss://container@account` it is the container.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() {
        let _ = url.set_username("");
        let _ = url.set_password(None);
    }
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}

/// Why a message was not taken.
#[derive(Debug)]
pub struct Refused {
    /// In words that can be shown.
    pub why: String,
    /// It may be taken a little later.
    may_pass: bool,
    /// It is not about this message: the next one would not be taken either.
    pub is_of_all: bool,
}

impl Refused {
    /// One that nothing can be sent to.
    pub fn always(why: String) -> Refused {
        Refused { why, may_pass: false, is_of_all: true }
    }

    fn for_now(why: String) -> Refused {
        Refused { why, may_pass: true, is_of_all: true }
    }

    fn with(status: reqwest::StatusCode) -> Refused {
        let may_pass = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
        // 400, 413 and the like are about what was sent
        let is_of_all =
            may_pass || status.is_redirection() || matches!(status.as_u16(), 401 | 403 | 404 | 410);
        Refused { why: format!("it answers {status}"), may_pass, is_of_all }
    }
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
    /// Why it was not taken.
    pub async fn post(
        &self,
        url: &SecretUrl,
        body: &str,
        bearer: Option<&str>,
    ) -> std::result::Result<(), Refused> {
        let mut waits = BACKOFF.iter();
        loop {
            let Err(refused) = self.attempt(url, body, bearer).await else {
                return Ok(());
            };
            match waits.next().filter(|_| refused.may_pass) {
                None => return Err(refused),
                Some(wait) => tokio::time::sleep(*wait).await,
            }
        }
    }

    async fn attempt(
        &self,
        url: &SecretUrl,
        body: &str,
        bearer: Option<&str>,
    ) -> std::result::Result<(), Refused> {
        let mut request = self.0.post(url.0.clone()).header("content-type", "application/json");
        if let Some(bearer) = bearer {
            request = request.bearer_auth(bearer);
        }
        match request.body(body.to_owned()).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(Refused::with(answer.status())),
            Err(error) if error.is_timeout() => {
                Err(Refused::for_now(format!("it does not answer within {} s", TIMEOUT.as_secs())))
            }
            Err(error) => Err(Refused::for_now(explained(error, url))),
        }
    }
}

/// The innermost cause, which names no path.
fn explained(error: reqwest::Error, url: &SecretUrl) -> String {
    let error = error.without_url();
    let mut text = innermost(&error).to_string();
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
    fn what_is_wrong_with_one_message_is_not_wrong_with_all() {
        let of = |status: u16| {
            let refused = Refused::with(reqwest::StatusCode::from_u16(status).unwrap());
            (refused.may_pass, refused.is_of_all)
        };
        for (status, expected) in [
            (400, (false, false)),
            (413, (false, false)),
            (302, (false, true)),
            (403, (false, true)),
            (404, (false, true)),
            (429, (true, true)),
            (503, (true, true)),
        ] {
            assert_eq!(of(status), expected, "{status}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_it() {
        for wrong in ["", "hooks.slack.com/services/T0/B0/secret", "ftp://host/secret", "file:///secret"] {
            let told = SecretUrl::parse(wrong).map(|_| ()).unwrap_err();
            assert!(!told.contains("secret"), "{told}");
        }
        assert_eq!(format!("{:?}", SecretUrl::parse(" https://h/secret\n").unwrap()), "a url");
        let url = Url::parse("s3://key:secret@bucket/lake?sig=secret").unwrap();
        assert_eq!(shown(&url), "s3://bucket/lake");
        let url = Url::parse("abfss://lake@account.dfs.core.windows.net/prod?sig=secret").unwrap();
        assert_eq!(shown(&url), "abfss://lake@account.dfs.core.windows.net/prod");
    }
}
