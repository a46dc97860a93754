//! What has to be known of a broker's URL without connecting: whether it can be one, and how it
//! looks without its secrets. No message of this module repeats a part of the URL, since a password
//! that was not percent-encoded may stand anywhere in it.

/// The parts of a broker's URL that may be shown.
struct Parts<'a> {
    scheme: &'a str,
    user: &'a str,
    address: &'a str,
    virtual_host: &'a str,
}

/// Checks scheme, host and port.
///
/// # Errors
/// What the URL must be, in words that follow "broker.url".
pub(super) fn check(url: &str) -> Result<(), String> {
    split(url).map(|_| ())
}

/// The URL without password and without query; `***` where it cannot be told apart.
pub(super) fn without_secrets(url: &str) -> String {
    let Ok(parts) = split(url) else { return "***".to_owned() };
    let at = if parts.user.is_empty() { "" } else { "@" };
    let Parts { scheme, user, address, virtual_host } = parts;
    format!("{scheme}://{user}{at}{address}{virtual_host}")
}

fn split(url: &str) -> Result<Parts<'_>, String> {
    let known = ["amqp", "amqps"].into_iter().find_map(|scheme| {
        url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")).map(|rest| (scheme, rest))
    });
    let Some((scheme, rest)) = known else {
        return Err("must start with amqp:// or amqps://".to_owned());
    };
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must not contain spaces or line breaks (percent-encode them)".to_owned());
    }
    let authority_end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(authority_end);
    let (user_info, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = user_info.split(':').next().unwrap_or("");
    let virtual_host = tail.split(['?', '#']).next().unwrap_or("");
    check_address(address)?;
    Ok(Parts { scheme, user, address, virtual_host })
}

fn check_address(address: &str) -> Result<(), String> {
    // An IPv6 address stands in brackets, and its colons are not the port's.
    let host_end = address.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match address[host_end..].find(':') {
        Some(colon) => (&address[..host_end + colon], Some(&address[host_end + colon + 1..])),
        None => (address, None),
    };
    if host.is_empty() {
        return Err("must name a host, as in amqp://user:password@host:5672/%2f".to_owned());
    }
    if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        let hint = "if the password has a /, ?, # or @ in it, percent-encode it";
        return Err(format!("must have a port from 1 to 65535 after the host ({hint})"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_brokers_pass_and_lose_their_secrets() {
        let cases = [
            ("amqp://guest:guest@127.0.0.1:5672/%2f", "amqp://guest@127.0.0.1:5672/%2f"),
            ("amqps://u:p%40ss@mq.example/v?heartbeat=10", "amqps://u@mq.example/v"),
            ("amqp://u:p@[::1]:5672", "amqp://u@[::1]:5672"),
            ("amqp://host", "amqp://host"),
            ("amqp://u:p@p@host/", "amqp://u@host/"),
        ];
        for (url, shown) in cases {
            assert_eq!(check(url), Ok(()), "{url}");
            assert_eq!(without_secrets(url), shown);
        }
    }

    #[test]
    fn a_refused_url_is_not_repeated() {
        let refused = [
            "",
            "hunter2",
            "http://u:hunter2@host",
            "amqp://u:hunter2@",
            "amqp://u:hunter2/x@host",
            "amqp://h:0",
            "amqp://u:hunter2@h o",
        ];
        for url in refused {
            let problem = check(url).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
            assert_eq!(without_secrets(url), "***");
        }
    }
}
