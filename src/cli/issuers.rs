//! Whose certificates the API is believed by, where it is asked with TLS.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::error::CliError;

/// Bytes that a file may have: several times as many as all issuers that a system trusts.
const MAX_FILE: u64 = 4 << 20;

/// TLS that believes the issuers in a file, or those of the system where none is named.
///
/// # Errors
/// The file cannot be used, or the system has no issuers.
pub(super) fn tls(ca: Option<&Path>) -> Result<TlsConfig, CliError> {
    let issuers = match ca {
        Some(path) => {
            in_file(path).map_err(|problem| CliError::Issuers { path: path.to_owned(), problem })?
        }
        None => of_the_system()?,
    };
    let issuers = issuers.iter().map(|der| Certificate::from_der(der).to_owned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = TlsConfig::builder().root_certs(RootCerts::from(issuers));
    Ok(tls.unversioned_rustls_crypto_provider(provider).build())
}

fn in_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let told = |error: std::io::Error| error.to_string();
    let about = fs::metadata(path).map_err(told)?;
    if !about.is_file() {
        return Err("it is not a file".to_owned());
    }
    if about.len() > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes"));
    }
    let text = fs::read(path).map_err(told)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err("it holds no certificate in PEM, which begins with -----BEGIN CERTIFICATE-----".to_owned())
        }
        Ok(found) => Ok(found),
        Err(error) => Err(format!("it is not whole PEM: {error}")),
    }
}

fn of_the_system() -> Result<Vec<CertificateDer<'static>>, CliError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let reason = found.errors.first().map_or("none was found".to_owned(), ToString::to_string);
        return Err(CliError::NoIssuers { reason });
    }
    Ok(found.certs)
}
