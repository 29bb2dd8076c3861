//! Where a node of Cassandra is: `host` or `host:port`.

use std::net::Ipv6Addr;

/// Where Cassandra listens unless somebody says otherwise.
const DEFAULT_PORT: u16 = 9042;

/// The host with its port; an IPv6 address stands in brackets before it.
///
/// # Errors
/// What is wrong with it.
pub fn with_port(text: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("`{text}` is no node of cassandra, `host` or `host:port`: {what}"));
    if text.contains("://") {
        return wrong("leave out what is before `//`");
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok(format!("[{text}]:{DEFAULT_PORT}"));
    }
    let (host, port) = match (text.rsplit_once(':'), text.ends_with(']')) {
        (Some((host, port)), false) => (host, Some(port)),
        _ => (text, None),
    };
    let is_name =
        |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let is_address = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    if host.is_empty() {
        return wrong("the host is missing");
    }
    if !is_address {
        return wrong("a host is a name, an IPv4 address, or an IPv6 address in brackets");
    }
    match port.map(str::parse::<u16>) {
        None => Ok(format!("{host}:{DEFAULT_PORT}")),
        Some(Ok(port)) if port > 0 => Ok(format!("{host}:{port}")),
        Some(_) => wrong("a port is a number from 1 to 65535"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_port() {
        for (given, expected) in [
            ("db", "db:9042"),
            ("db:19042", "db:19042"),
            ("db_1.example-a.org", "db_1.example-a.org:9042"),
            ("127.0.0.1", "127.0.0.1:9042"),
            ("::1", "[::1]:9042"),
            ("[::1]:1", "[::1]:1"),
            ("[::1]", "[::1]:9042"),
        ] {
            assert_eq!(with_port(given).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_no_host_is_told() {
        for (given, told) in [
            ("", "the host is missing"),
            (":9042", "the host is missing"),
            ("db:99999", "a port is"),
            ("db:0", "a port is"),
            ("db:", "a port is"),
            ("db:x", "a port is"),
            ("http://db", "leave out"),
            ("db/x", "a host is"),
            ("a b", "a host is"),
            ("[db]:1", "a host is"),
            ("1:2:3", "a host is"),
        ] {
            let error = with_port(given).unwrap_err();
            assert!(error.contains(told), "{given}: {error}");
        }
    }
}
