//! Asks a running orchestrator's HTTP API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body};

use super::error::CliError;
use super::issuers;
use crate::config::CA_VARIABLE;
use crate::http::view::ErrorBody;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// A connection to the API at one address.
#[derive(Clone, Debug)]
pub struct Client {
    agent: Agent,
    url: String,
    /// The same for messages: without user and password, which a proxy before it may ask for.
    shown: String,
}

/// An answer of the API.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
}

/// Where the API of an orchestrator with this setting is reached from the same machine.
pub fn default_url(bind: SocketAddr) -> String {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, bind.port()))
}

/// The file of issuers for an address: what the flag says, else the variable, which may be set for other addresses.
pub fn issuers_of(url: &str, flag: Option<PathBuf>) -> Option<PathBuf> {
    let variable =
        || std::env::var_os(CA_VARIABLE).filter(|file| !file.is_empty() && url.starts_with("https://"));
    flag.or_else(|| variable().map(PathBuf::from))
}

impl Client {
    /// A client of the API at `url`. With `https://`, the certificate there must come from an issuer in the file `ca`,
    /// or from one of the system's. Nothing is sent yet.
    ///
    /// # Errors
    /// The address cannot be one, or there are no issuers.
    pub fn new(url: &str, ca: Option<&Path>) -> Result<Self, CliError> {
        let url = url.trim_end_matches('/').to_owned();
        let shown = without_user(&url);
        let tls = match url.split_once("://") {
            Some(("https", _)) => issuers::tls(ca)?,
            Some(("http", _)) if ca.is_some() => return Err(CliError::UnusedIssuers { url: shown }),
            Some(("http", _)) => TlsConfig::default(),
            _ => {
                let reason = "it does not start with http:// or https://".to_owned();
                return Err(CliError::Address { url: shown, reason });
            }
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // The API is near by; a proxy for the web would not find it.
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(30)))
            .tls_config(tls);
        Ok(Self { agent: config.build().into(), shown, url })
    }

    /// The address, as it may be shown.
    pub(super) fn address(&self) -> &str {
        &self.shown
    }

    /// Gets what is at `path`, whatever its status.
    ///
    /// # Errors
    /// Nothing answers there in time, or it speaks no HTTP.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Answer, CliError> {
        let request = self.agent.get(format!("{}{path}", self.url)).query_pairs(parameters.iter().copied());
        self.answer(request.call())
    }

    /// Posts JSON to `path`.
    ///
    /// # Errors
    /// As for [`Client::fetch`].
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, CliError> {
        let request = self.agent.post(format!("{}{path}", self.url));
        self.fine(self.answer(request.send_json(body))?)
    }

    /// Posts to `path` without a body.
    ///
    /// # Errors
    /// As for [`Client::fetch`].
    pub fn post_nothing(&self, path: &str) -> Result<Answer, CliError> {
        self.fine(self.answer(self.agent.post(format!("{}{path}", self.url)).send_empty())?)
    }

    fn answer(&self, response: Result<Response<Body>, ureq::Error>) -> Result<Answer, CliError> {
        let mut response = response.map_err(|error| self.failure(error))?;
        let status = response.status().as_u16();
        let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string();
        Ok(Answer { status, text: text.map_err(|error| self.failure(error))? })
    }

    /// Gets what is at `path`, where it is there.
    ///
    /// # Errors
    /// As for [`Client::get`], and an answer that is an error: not found, refused or failed.
    pub fn fetch(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Answer, CliError> {
        self.fine(self.get(path, parameters)?)
    }

    /// The answer, unless it is an error.
    fn fine(&self, answer: Answer) -> Result<Answer, CliError> {
        if answer.status == 200 {
            return Ok(answer);
        }
        let ErrorBody { error } = self.read(&answer)?;
        Err(match answer.status {
            404 => CliError::NotFound(error.message),
            400..=499 => CliError::Refused(error.message),
            _ => CliError::Failed { url: self.shown.clone(), message: error.message },
        })
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// It is not what an orchestrator answers.
    pub fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, CliError> {
        serde_json::from_str(&answer.text).map_err(|error| CliError::Foreign {
            url: self.shown.clone(),
            reason: format!("status {}, {error}", answer.status),
        })
    }

    fn failure(&self, error: ureq::Error) -> CliError {
        let url = self.shown.clone();
        match tls_error(&error) {
            Some(rustls::Error::InvalidMessage(_)) => return CliError::WithoutTls { url },
            Some(error @ rustls::Error::InvalidCertificate(_)) => {
                return CliError::Untrusted { url, reason: error.to_string() };
            }
            _ => {}
        }
        let reason = error.to_string();
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TlsRequired => {
                CliError::Address { url, reason }
            }
            ureq::Error::Protocol(_) | ureq::Error::BodyExceedsLimit(_) => CliError::Foreign { url, reason },
            _ => CliError::Unreachable { url, reason },
        }
    }
}

/// The TLS library's own error.
fn tls_error(error: &ureq::Error) -> Option<&rustls::Error> {
    match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

/// An address without what stands before its `@`.
fn without_user(url: &str) -> String {
    let start = url.find("://").map_or(0, |colon| colon + 3);
    match url.rfind('@') {
        Some(at) if at >= start => format!("{}{}", &url[..start], &url[at + 1..]),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::cli::Exit;

    #[test]
    fn an_unspecified_address_is_reached_by_loopback() {
        let cases = [
            ("0.0.0.0:7654", "http://127.0.0.1:7654"),
            ("[::]:1", "http://[::1]:1"),
            ("10.0.0.1:80", "http://10.0.0.1:80"),
        ];
        for (bind, url) in cases {
            assert_eq!(default_url(bind.parse().unwrap()), url);
        }
    }

    #[test]
    fn where_nobody_answers_the_error_says_what_to_do() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let fetched = |url: &str| Client::new(url, None).and_then(|client| client.fetch("/livez", &[]));
        let error = fetched(&format!("http://{free}/")).err().unwrap();
        assert_eq!(error.exit(), Exit::Environment);
        assert!(
            error
                .to_string()
                .starts_with(&format!("no orchestrator answers at http://{free}: is `sagamq run` running?"))
        );
        for url in ["", "ftp://127.0.0.1", "http://", "http://a b", "amqp://u:hunter2@h", "u:hunter2@h"] {
            let error = fetched(url).err().unwrap();
            assert_eq!(error.exit(), Exit::Usage, "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
