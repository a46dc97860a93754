//! The broker's URL, for the watch.

use std::net::SocketAddr;

/// A URL that the watch can stand before: one without TLS.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split<'a> {
    before: &'a str,
    address: String,
    after: &'a str,
}

/// Takes a URL apart; `None` where its traffic cannot be read.
pub(super) fn split(url: &str) -> Option<Split<'_>> {
    /// Where it listens if the URL does not tell.
    const PORT: u16 = 5672;
    let rest = url.strip_prefix("amqp://")?;
    let (place, after) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let authority = place.rsplit_once('@').map_or(place, |(_, authority)| authority);
    let before = &url[..url.len() - after.len() - authority.len()];
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { authority.to_owned() } else { format!("{authority}:{PORT}") };
    Some(Split { before, address, after })
}

impl Split<'_> {
    /// Host and port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// The same with another host and port.
    pub(super) fn at(&self, address: SocketAddr) -> String {
        format!("{}{address}{}", self.before, self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_and_port_are_exchanged() {
        let there = SocketAddr::from(([127, 0, 0, 1], 9));
        for (url, address, at) in [
            ("amqp://u:p@host:5673/%2f?heartbeat=5", "host:5673", "amqp://u:p@127.0.0.1:9/%2f?heartbeat=5"),
            ("amqp://host", "host:5672", "amqp://127.0.0.1:9"),
            ("amqp://u:p@[::1]:1/v", "[::1]:1", "amqp://u:p@127.0.0.1:9/v"),
        ] {
            let split = split(url).unwrap();
            assert_eq!((split.address(), split.at(there).as_str()), (address, at));
        }
        assert_eq!(split("amqps://host"), None);
    }
}
