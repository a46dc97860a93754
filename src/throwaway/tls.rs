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
    /// Whether a client may be the user that its certificate has as its common name, without a password.
    pub certificates_are_users: bool,
}

/// The plugin by which certificates are users, and what has the node offer it.
const PLUGIN: &str = "rabbitmq_auth_mechanism_ssl";
const MECHANISMS: &str =
    "auth_mechanisms.1 = PLAIN\nauth_mechanisms.2 = EXTERNAL\nssl_cert_login_from = common_name\n";

impl Node {
    /// The URL to connect to with TLS: user guest, virtual host `/`.
    pub fn tls_url(&self) -> String {
        format!("amqps://guest:guest@127.0.0.1:{}/%2f", self.tls_port)
    }

    /// Exchanges the files of the listener; they count from the next restart on. All else stays as it is.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn exchange_certificates(&self, listener: &Listener) -> Result<(), NodeError> {
        let Listener { ca, cert, key, asks_clients: _, certificates_are_users: _ } = listener;
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
        let mechanisms = if listener.certificates_are_users { MECHANISMS } else { "" };
        Ok(format!(
            "{mechanisms}\
             listeners.ssl.1 = 127.0.0.1:{port}\n\
             num_acceptors.ssl = 2\n\
             ssl_options.cacertfile = {folder}/ca.pem\n\
             ssl_options.certfile = {folder}/cert.pem\n\
             ssl_options.keyfile = {folder}/key.pem\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = {asks}\n"
        ))
    }
}

impl Listener {
    /// The plugins that a node with it has, in their file's form.
    pub(super) fn plugins(&self) -> String {
        format!("[{}].\n", if self.certificates_are_users { PLUGIN } else { "" })
    }
}
