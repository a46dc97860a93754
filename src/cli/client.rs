//! Asks a running orchestrator's HTTP API.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::http::Response;
use ureq::{Agent, Body};

use super::error::CliError;
use crate::http::view::ErrorBody;

/// The largest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 20;

/// A connection to the API at one address.
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

impl Client {
    /// A client of the API at `url`. Nothing is sent yet.
    pub fn new(url: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // The API is near by; a proxy for the web would not find it.
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(5)))
            .timeout_global(Some(Duration::from_secs(30)));
        let url = url.trim_end_matches('/').to_owned();
        Self { agent: config.build().into(), shown: without_user(&url), url }
    }

    /// Gets what is at `path`, whatever its status.
    ///
    /// # Errors
    /// Nothing answers there in time, or it speaks no HTTP.
    pub fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Answer, CliError> {
        self.check_url()?;
        let request = self.agent.get(format!("{}{path}", self.url)).query_pairs(parameters.iter().copied());
        self.answer(request.call())
    }

    /// Posts JSON to `path`.
    ///
    /// # Errors
    /// As for [`Client::fetch`].
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, CliError> {
        self.check_url()?;
        let request = self.agent.post(format!("{}{path}", self.url));
        self.fine(self.answer(request.send_json(body))?)
    }

    /// Posts to `path` without a body.
    ///
    /// # Errors
    /// As for [`Client::fetch`].
    pub fn post_nothing(&self, path: &str) -> Result<Answer, CliError> {
        self.check_url()?;
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

    fn check_url(&self) -> Result<(), CliError> {
        if self.url.starts_with("http://") {
            return Ok(());
        }
        let reason = "it does not start with http://".to_owned();
        Err(CliError::Address { url: self.shown.clone(), reason })
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
        let (url, reason) = (self.shown.clone(), error.to_string());
        match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::TlsRequired => {
                CliError::Address { url, reason }
            }
            ureq::Error::Protocol(_) | ureq::Error::BodyExceedsLimit(_) => CliError::Foreign { url, reason },
            _ => CliError::Unreachable { url, reason },
        }
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
        let error = Client::new(&format!("http://{free}/")).fetch("/livez", &[]).err().unwrap();
        assert_eq!(error.exit(), Exit::Environment);
        assert!(
            error
                .to_string()
                .starts_with(&format!("no orchestrator answers at http://{free}: is `sagamq run` running?"))
        );
        for url in ["", "https://127.0.0.1", "http://", "http://a b", "amqp://u:hunter2@h", "u:hunter2@h"] {
            let error = Client::new(url).fetch("/livez", &[]).err().unwrap();
            assert_eq!(error.exit(), Exit::Usage, "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
