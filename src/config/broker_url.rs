//! What has to be known of a broker's URL without connecting: whether it can be one, and how it
//! looks without its secrets. No message of this module repeats a part of the URL, since a password
//! that was not percent-encoded may stand anywhere in it.

/// The parts of a broker's URL that may be shown.
struct Parts<'a> {
    scheme: &'a str,
    user: &'a str,
    address: &'a str,
    virtual_host: &'a str,
    /// After the `?`; may hold the end of a password, and must not be shown.
    query: &'a str,
}

/// A parameter's name, what its value must be, and whether a value is that.
type Parameter = (&'static str, &'static str, fn(&str) -> bool);

/// The parameters that count.
const PARAMETERS: [Parameter; 5] = [
    ("heartbeat", "a whole number of seconds from 0, for none, to 65535", |text| text.parse::<u16>().is_ok()),
    ("frame_max", "a whole number of bytes from 4096 to 4294967295, or 0 for what the broker has", |text| {
        text.parse::<u32>().is_ok_and(|bytes| bytes == 0 || bytes >= 4096)
    }),
    ("channel_max", "a whole number from 0, for what the broker has, to 65535", |text| {
        text.parse::<u16>().is_ok()
    }),
    ("connection_timeout", "a whole number of milliseconds from 1 to 4294967295", |text| {
        text.parse::<u32>().is_ok_and(|millis| millis > 0)
    }),
    ("auth_mechanism", "one of plain, amqplain, external, anonymous", |text| {
        ["plain", "amqplain", "external", "anonymous"].contains(&text)
    }),
];

/// Parameters that RabbitMQ's own clients know, and the settings that they are here.
const ELSEWHERE: [(&str, &str); 7] = [
    ("cacertfile", "broker.tls.ca"),
    ("ca_certs", "broker.tls.ca"),
    ("certfile", "broker.tls.cert"),
    ("keyfile", "broker.tls.key"),
    ("server_name_indication", "broker.tls.server_name"),
    ("verify", "none: the broker's certificate is always checked; broker.tls.ca says against what"),
    ("fail_if_no_peer_cert", "none: this is the broker's to decide"),
];

/// Checks scheme, host, port and parameters.
///
/// # Errors
/// What the URL must be, in words that follow "broker.url".
pub(super) fn check(url: &str) -> Result<(), String> {
    check_parameters(split(url)?.query)
}

/// Checks what stands after the `?`: what the client library does not know it would leave out without a
/// word.
fn check_parameters(query: &str) -> Result<(), String> {
    // The end of a password, and none of it may be shown.
    if query.contains(['@', '#']) {
        return Err(
            "must not have an @ or a # after the virtual host (if the password has a /, ?, # or @ in \
                    it, percent-encode it)"
                .to_owned(),
        );
    }
    let mut seen: Vec<&str> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some((name, form, fits)) = PARAMETERS.iter().find(|(known, _, _)| *known == name) else {
            return Err(unknown(name));
        };
        if seen.contains(name) {
            return Err(format!("has the parameter {name} twice: keep one"));
        }
        if !fits(value) {
            return Err(format!("must have {form} as its parameter {name}"));
        }
        seen.push(name);
    }
    Ok(())
}

fn unknown(name: &str) -> String {
    let known = PARAMETERS.map(|(name, _, _)| name).join(", ");
    match ELSEWHERE.iter().find(|(there, _)| *there == name) {
        Some((_, setting)) => format!("has the parameter {name}, which is a setting here: {setting}"),
        None => format!("has the unknown parameter {name:?}; those that count are {known}"),
    }
}

/// The URL without password and without query; `***` where it cannot be told apart.
pub(super) fn without_secrets(url: &str) -> String {
    let Ok(parts) = split(url) else { return "***".to_owned() };
    let at = if parts.user.is_empty() { "" } else { "@" };
    let Parts { scheme, user, address, virtual_host, query: _ } = parts;
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
    let query = &tail[virtual_host.len()..];
    let query = query.strip_prefix('?').unwrap_or(query);
    Ok(Parts { scheme, user, address, virtual_host, query })
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
    fn parameters_that_do_not_count_are_refused_by_name() {
        let known = "heartbeat=5&frame_max=0&channel_max=64&connection_timeout=2000&auth_mechanism=external";
        for query in ["", "heartbeat=0", known] {
            assert_eq!(check(&format!("amqps://u:p@host/v?{query}")), Ok(()), "{query}");
        }
        let cases = [
            ("heartbeats=5", "has the unknown parameter \"heartbeats\"; those that count are heartbeat, "),
            ("x&y", "has the unknown parameter \"x\""),
            ("cacertfile=/ca", "has the parameter cacertfile, which is a setting here: broker.tls.ca"),
            ("verify=verify_none", "has the parameter verify, which is a setting here: none: the broker's"),
            ("heartbeat=5&heartbeat=6", "has the parameter heartbeat twice"),
            ("heartbeat=70000", "must have a whole number of seconds"),
            ("heartbeat", "must have a whole number of seconds"),
            ("frame_max=64", "must have a whole number of bytes"),
            ("connection_timeout=0", "must have a whole number of milliseconds"),
            ("auth_mechanism=PLAIN", "must have one of plain, amqplain"),
        ];
        for (query, problem) in cases {
            let told = check(&format!("amqp://u:p@host?{query}")).unwrap_err();
            assert!(told.starts_with(problem), "{told}");
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
        for url in ["amqp://u:5?hunter2@host", "amqp://u:5/v#hunter2", "amqp://u:p@h?heartbeat=hunter2"] {
            let problem = check(url).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        for url in refused {
            let problem = check(url).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
            assert_eq!(without_secrets(url), "***");
        }
    }
}
