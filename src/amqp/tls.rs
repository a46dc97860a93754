//! TLS to the broker: what the files of `broker.tls` come to, and whether they have changed.
//!
//! The files are read anew for each connection, so a certificate that was exchanged is used from the
//! next one on. An open connection stays as it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::mismatch::TlsError;
use crate::config::TlsConfig;

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(5);

/// Bytes that a file may have: several times as many as all issuers that a system trusts.
const MAX_FILE: u64 = 4 << 20;

/// Reads the files, and off the thread that decides: it may take milliseconds to read the system's roots.
pub(super) async fn client(config: &TlsConfig) -> Result<Arc<ClientConfig>, TlsError> {
    let config = config.clone();
    match tokio::task::spawn_blocking(move || client_of(&config)).await {
        Ok(client) => client.map(Arc::new),
        Err(error) => Err(TlsError::Refused { reason: error.to_string() }),
    }
}

/// Tells whenever the files have changed, and at once what is wrong with them: an open connection would
/// not find out before it is lost. Returns at once if there are none.
pub(crate) async fn watch(config: TlsConfig) {
    if files(&config).is_empty() {
        return;
    }
    let mut seen = digests(&config).await;
    loop {
        tokio::time::sleep(LOOK).await;
        let found = digests(&config).await;
        if found != seen {
            seen = found;
            tell(client(&config).await);
        }
    }
}

fn tell(client: Result<Arc<ClientConfig>, TlsError>) {
    match client {
        Ok(_) => info!("the files of broker.tls have changed: they are used from the next connection on"),
        Err(error) => {
            warn!(%error, "the files of broker.tls have changed, and no connection can be opened with them");
        }
    }
}

/// What the files hold at this moment, in short; nothing of a file that cannot be read.
async fn digests(config: &TlsConfig) -> Vec<Option<[u8; 32]>> {
    let paths: Vec<_> = files(config).into_iter().map(|(_, path)| path.to_owned()).collect();
    let digest = |path: &PathBuf| read(path).ok().map(|bytes| Sha256::digest(bytes).into());
    tokio::task::spawn_blocking(move || paths.iter().map(digest).collect()).await.unwrap_or_default()
}

/// The files that are set, with their settings' names.
fn files(config: &TlsConfig) -> Vec<(&'static str, &Path)> {
    let TlsConfig { ca, cert, key, server_name: _ } = config;
    let all = [("ca", ca), ("cert", cert), ("key", key)];
    all.into_iter().filter_map(|(name, path)| path.as_deref().map(|path| (name, path))).collect()
}

/// The first setting that is set, if one is.
pub(super) fn first_set(config: &TlsConfig) -> Option<&'static str> {
    let first = files(config).first().map(|(name, _)| *name);
    first.or(config.server_name.as_ref().map(|_| "server_name"))
}

fn client_of(config: &TlsConfig) -> Result<ClientConfig, TlsError> {
    let refused = |error: rustls::Error| TlsError::Refused { reason: error.to_string() };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(refused)?.with_root_certificates(match &config.ca {
        Some(path) => own_roots(path)?,
        None => system_roots()?,
    });
    match (&config.cert, &config.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(cert), Some(key)) => {
            let (chain, parsed) = (certificates("cert", cert)?, private_key(key)?);
            builder.with_client_auth_cert(chain, parsed).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => {
                    TlsError::KeyMismatch { cert: cert.clone(), key: key.clone() }
                }
                rustls::Error::InvalidCertificate(_) => {
                    unusable("cert", cert, "its first certificate is broken")
                }
                _ => {
                    unusable("key", key, "it is of a kind that is not supported: RSA, ECDSA and Ed25519 are")
                }
            })
        }
        (Some(_), None) => Err(TlsError::Half { set: "cert", missing: "key" }),
        (None, Some(_)) => Err(TlsError::Half { set: "key", missing: "cert" }),
    }
}

fn own_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates("ca", path)? {
        roots
            .add(certificate)
            .map_err(|error| unusable("ca", path, format!("a certificate in it is broken: {error}")))?;
    }
    Ok(roots)
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = found.errors.first().map_or("none was found".to_owned(), ToString::to_string);
        return Err(TlsError::NoRoots { reason });
    }
    Ok(roots)
}

fn certificates(setting: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read_setting(setting, path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match parsed {
        Ok(found) if found.is_empty() => Err(unusable(
            setting,
            path,
            "it holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----; \
             `openssl x509 -inform der -in FILE` makes one of DER",
        )),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(setting, path, format!("it is not whole PEM: {}", in_short(&error)))),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read_setting("key", path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound if is_encrypted(&text) => unusable(
            "key",
            path,
            "it is encrypted with a password; `openssl pkey -in FILE` takes that off, and then only sagamq's user \
             should be able to read it",
        ),
        pem::Error::NoItemsFound => unusable(
            "key",
            path,
            "it holds no private key in PEM, which begins with -----BEGIN PRIVATE KEY-----; `openssl pkey -in FILE` \
             makes one",
        ),
        error => unusable("key", path, format!("it is not whole PEM: {}", in_short(&error))),
    })
}

fn is_encrypted(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

/// What is wrong with a file in PEM, without a part of it: it may be of a key.
fn in_short(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a part has no -----END line",
        pem::Error::IllegalSectionStart { .. } => "a -----BEGIN line is broken",
        pem::Error::Base64Decode(_) => "a part is not base64",
        _ => "it cannot be read",
    }
}

fn read_setting(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    read(path).map_err(|source| TlsError::Unreadable { setting, path: path.to_owned(), source })
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let about = fs::metadata(path)?;
    if !about.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    if about.len() > MAX_FILE {
        return Err(std::io::Error::other("it is larger than 4 MiB"));
    }
    fs::read(path)
}

fn unusable(setting: &'static str, path: &Path, problem: impl Into<String>) -> TlsError {
    TlsError::Unusable { setting, path: path.to_owned(), problem: problem.into() }
}
