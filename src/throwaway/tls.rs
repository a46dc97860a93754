//! A node's listener for TLS.

use std::fs;

use super::{Node, NodeError};

/// What a node shows to its clients, and what it asks of them. All are in PEM.
#[derive(Clone, Debug)]
pub struct Listener {
    /// The issuers that client certificates may come from.
    pub ca: String,
    /// The node's certificate, and after it those of its issuers.
    pub cert: String,
    /// The key of the node's certificate.
    pub key: String,
    /// Whether clients must have a certificate. One that is shown is checked in any case.
    pub asks_clients: bool,
}

impl Node {
    /// The URL to connect to with TLS: user guest, virtual host `/`.
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@127.0.0.1:{}/%2f", self.tls_port)
    }

    /// Exchanges the files of the listener; they count from the next restart on. Whether clients are
    /// asked for certificates stays as it is.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn exchange_certificates(&self, listener: &Listener) -> Result<(), NodeError> {
        let Listener { ca, cert, key, asks_clients: _ } = listener;
        for (name, text) in [("ca.pem", ca), ("cert.pem", cert), ("key.pem", key)] {
            let path = self.folder.join(name);
            fs::write(&path, text).map_err(|source| NodeError::Folder { path, source })?;
        }
        Ok(())
    }

    /// Writes the files, and returns the lines of the configuration.
    pub(super) fn listen_with(&self, listener: &Listener) -> Result<String, NodeError> {
        self.exchange_certificates(listener)?;
        let (port, folder, asks) = (self.tls_port, self.folder.display(), listener.asks_clients);
        Ok(format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\n\
             num_acceptors.ssl = 2\n\
             ssl_options.cacertfile = {folder}/ca.pem\n\
             ssl_options.certfile = {folder}/cert.pem\n\
             ssl_options.keyfile = {folder}/key.pem\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = {asks}\n"
        ))
    }
}
