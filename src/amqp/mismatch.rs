//! What keeps TLS from being had, in words: files that cannot be used, and brokers that do not fit them.
//!
//! What the client library says of a port that speaks something else is of little use to a person. So
//! where a connection fails before the broker has said a word, the port is asked once more what it is.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use lapin::ErrorKind;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::TlsConfig;

/// Time limit of asking a port what it speaks.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// Names of a certificate that are shown.
const SHOWN_NAMES: usize = 5;

/// Why there is no TLS. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Settings without effect, and a user who believes to be safe.
    #[error(
        "broker.tls.{setting} is set, but broker.url begins with amqp://, so nothing would be encrypted; begin it with \
         amqps://, or leave broker.tls out"
    )]
    Unused {
        /// The setting, without `broker.tls.`.
        setting: &'static str,
    },
    /// A user without a certificate, who is to be known by one.
    #[error(
        "broker.url has auth_mechanism=external, so the client certificate says who the user is; begin broker.url with \
         amqps://, and name the certificate's files in broker.tls.cert and broker.tls.key"
    )]
    NoIdentity,
    /// Half of a client certificate.
    #[error("broker.tls.{set} is set without broker.tls.{missing}; a client certificate needs both")]
    Half {
        /// What is there.
        set: &'static str,
        /// What is not.
        missing: &'static str,
    },
    /// A file is not there, or not for this user.
    #[error(
        "cannot read broker.tls.{setting}, {}: {source}; check the path, and that sagamq's user may read it",
        path.display()
    )]
    Unreadable {
        /// The setting, without `broker.tls.`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("cannot use broker.tls.{setting}, {}: {problem}", path.display())]
    Unusable {
        /// The setting, without `broker.tls.`.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// Two files that do not belong together.
    #[error(
        "the key in broker.tls.key, {}, is not that of the first certificate in broker.tls.cert, {}; name the key that \
         the certificate was made for, and put the client certificate before those of its issuers",
        key.display(),
        cert.display()
    )]
    KeyMismatch {
        /// The file of the certificate.
        cert: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// This machine trusts nobody.
    #[error(
        "this system has no certificates of issuers to trust ({reason}); install them (package ca-certificates), or name \
         the file of the broker's issuer in broker.tls.ca"
    )]
    NoRoots {
        /// In the system's words.
        reason: String,
    },
    /// TLS to a port without.
    #[error(
        "the port of the broker at {url} does not speak TLS; name the broker's TLS port in broker.url (5671, unless it \
         was changed), or begin it with amqp:// if nothing needs to be encrypted"
    )]
    PlainPort {
        /// The URL without its password.
        url: String,
    },
    /// No TLS to a port with.
    #[error(
        "the port of the broker at {url} speaks TLS; begin broker.url with amqps://, or name the broker's port without \
         TLS (5672, unless it was changed)"
    )]
    TlsPort {
        /// The URL without its password.
        url: String,
    },
    /// The broker's certificate comes from a stranger.
    #[error(
        "the certificate of the broker at {url} does not come from an issuer in {roots}; put the issuer's certificate \
         into the file of broker.tls.ca, and have the broker send those between (its ssl_options.certfile)"
    )]
    UnknownIssuer {
        /// The URL without its password.
        url: String,
        /// Who is trusted.
        roots: String,
    },
    /// The broker's certificate is somebody else's.
    #[error(
        "the certificate of the broker at {url} is for {presented}, not for {expected}; name the broker so in broker.url, \
         or set broker.tls.server_name to a name that the certificate has"
    )]
    WrongName {
        /// The URL without its password.
        url: String,
        /// The name that was looked for.
        expected: String,
        /// Those that are there.
        presented: String,
    },
    /// The broker's certificate is too old or too new.
    #[error(
        "the certificate of the broker at {url}, or of its issuer, {when}; renew it at the broker, or set this machine's \
         clock right"
    )]
    Expired {
        /// The URL without its password.
        url: String,
        /// Since when, or from when on.
        when: String,
    },
    /// The broker's certificate is no good in another way.
    #[error(
        "the certificate of the broker at {url} cannot be used: {reason}; have another one made for the broker"
    )]
    BadCertificate {
        /// The URL without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The broker wants to know who is there.
    #[error(
        "the broker at {url} asks for a client certificate ({alert}); name its files in broker.tls.cert and broker.tls.key"
    )]
    CertificateRequired {
        /// The URL without its password.
        url: String,
        /// In the broker's words.
        alert: String,
    },
    /// The broker does not like who is there.
    #[error(
        "the broker at {url} refused the client certificate in broker.tls.cert, {} ({alert}); the broker must trust its \
         issuer (ssl_options.cacertfile), and it must be valid and for clients; the broker's log says more",
        cert.display()
    )]
    CertificateRefused {
        /// The URL without its password.
        url: String,
        /// The file of the certificate.
        cert: PathBuf,
        /// In the broker's words.
        alert: String,
    },
    /// Nothing in common, or a bug.
    #[error(
        "TLS with the broker at {url} failed: {reason}; the broker must have TLS 1.2 or 1.3 and a common cipher"
    )]
    Handshake {
        /// The URL without its password.
        url: String,
        /// What came of it.
        reason: String,
    },
    /// The TLS library refuses to be set up.
    #[error("TLS cannot be set up: {reason}; check the files of broker.tls")]
    Refused {
        /// In its words.
        reason: String,
    },
}

/// What a connection was to be.
pub(super) struct Attempt<'a> {
    /// The URL without its password.
    pub(super) url: String,
    /// The settings.
    pub(super) config: &'a TlsConfig,
    /// With TLS: how, and with whom.
    pub(super) client: Option<(Arc<ClientConfig>, String)>,
    /// Where the broker is.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Attempt<'_> {
    /// What is wrong, if it is TLS that kept the connection from being opened.
    pub(super) async fn explain(&self, error: &lapin::Error) -> Option<TlsError> {
        let found = match error.kind() {
            // The broker speaks AMQP with us.
            ErrorKind::ProtocolError(_) => return None,
            ErrorKind::IOError(error) => tls_error(error).cloned(),
            _ => None,
        };
        match found {
            Some(found) => Some(self.tell(&found)),
            None => self.ask().await,
        }
    }

    /// Asks the port what it speaks, after a failure that does not tell.
    async fn ask(&self) -> Option<TlsError> {
        let address = *self.addresses.first()?;
        match self.client.clone() {
            None => {
                let asked = timeout(ASK_TIMEOUT, speaks_tls(address)).await;
                matches!(asked, Ok(Ok(true))).then(|| TlsError::TlsPort { url: self.url.clone() })
            }
            // An alert that says why may be lost where the port is closed right after it.
            Some((client, name)) => {
                let asked = timeout(ASK_TIMEOUT, listen(address, client, name)).await;
                asked.ok()?.err().as_ref().and_then(tls_error).map(|error| self.tell(error))
            }
        }
    }

    fn tell(&self, error: &rustls::Error) -> TlsError {
        let url = self.url.clone();
        match error {
            rustls::Error::InvalidMessage(_) => TlsError::PlainPort { url },
            rustls::Error::InvalidCertificate(error) => self.tell_certificate(error),
            rustls::Error::AlertReceived(alert) => self.tell_alert(*alert),
            error => TlsError::Handshake { url, reason: error.to_string() },
        }
    }

    fn tell_certificate(&self, error: &CertificateError) -> TlsError {
        use CertificateError::{
            BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
            NotValidYetContext, UnknownIssuer,
        };
        let url = self.url.clone();
        match error {
            // An issuer of the same name with another key gives a bad signature.
            UnknownIssuer | BadSignature => TlsError::UnknownIssuer { url, roots: self.roots() },
            NotValidForNameContext { presented, .. } => {
                TlsError::WrongName { url, expected: self.name(), presented: names(presented) }
            }
            NotValidForName => {
                TlsError::WrongName { url, expected: self.name(), presented: "others".to_owned() }
            }
            ExpiredContext { not_after, .. } => {
                TlsError::Expired { url, when: format!("expired on {}", day(*not_after)) }
            }
            NotValidYetContext { not_before, .. } => {
                TlsError::Expired { url, when: format!("is not valid before {}", day(*not_before)) }
            }
            Expired => TlsError::Expired { url, when: "has expired".to_owned() },
            NotValidYet => TlsError::Expired { url, when: "is not valid yet".to_owned() },
            error => TlsError::BadCertificate { url, reason: error.to_string() },
        }
    }

    fn tell_alert(&self, alert: AlertDescription) -> TlsError {
        let url = self.url.clone();
        let words = format!("TLS alert {alert:?}");
        let of_certificates = matches!(
            alert,
            AlertDescription::CertificateRequired
                | AlertDescription::HandshakeFailure
                | AlertDescription::NoCertificate
                | AlertDescription::BadCertificate
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
        );
        match &self.config.cert {
            _ if !of_certificates => TlsError::Handshake { url, reason: words },
            None => TlsError::CertificateRequired { url, alert: words },
            Some(cert) => TlsError::CertificateRefused { url, cert: cert.clone(), alert: words },
        }
    }

    fn name(&self) -> String {
        self.client.as_ref().map(|(_, name)| name.clone()).unwrap_or_default()
    }

    fn roots(&self) -> String {
        match &self.config.ca {
            Some(path) => format!("broker.tls.ca, {}", path.display()),
            None => "the system's store of trusted certificates".to_owned(),
        }
    }
}

/// The TLS library's own error in one of reading or writing.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// Whether a port answers the AMQP header with TLS.
async fn speaks_tls(address: SocketAddr) -> io::Result<bool> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(b"AMQP\x00\x00\x09\x01").await?;
    let mut answer = [0; 2];
    socket.read_exact(&mut answer).await?;
    // An alert (21) or a part of a handshake (22), of any version.
    Ok(matches!(answer, [21 | 22, 3]))
}

/// Shakes hands with a port, and only listens then: one that is well says nothing more.
async fn listen(address: SocketAddr, client: Arc<ClientConfig>, name: String) -> io::Result<()> {
    let name = ServerName::try_from(name).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(client, name).map_err(io::Error::other)?;
    let mut socket = TcpStream::connect(address).await?;
    let (mut outgoing, mut incoming) = (Vec::new(), [0; 4096]);
    loop {
        while tls.wants_write() {
            tls.write_tls(&mut outgoing)?;
        }
        socket.write_all(&outgoing).await?;
        outgoing.clear();
        let length = socket.read(&mut incoming).await?;
        let mut rest = &incoming[..length];
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            tls.read_tls(&mut rest)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }
}

/// The names in a certificate, which a stranger may have written.
fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all".to_owned();
    }
    let plain = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
        inner.trim_matches('"').escape_debug().take(100).collect::<String>()
    };
    let mut shown: Vec<_> = presented.iter().take(SHOWN_NAMES).map(plain).collect();
    if presented.len() > SHOWN_NAMES {
        shown.push(format!("{} more", presented.len() - SHOWN_NAMES));
    }
    shown.join(", ")
}

fn day(time: UnixTime) -> String {
    let secs = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    DateTime::from_timestamp(secs, 0).map_or_else(
        || format!("second {secs} since 1970"),
        |time| time.format("%Y-%m-%d at %H:%M:%S UTC").to_string(),
    )
}
