//! Issuers of certificates, as companies have their own.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use sagamq::throwaway::Listener;

/// One that signs certificates.
pub(crate) struct Authority {
    /// Its own certificate.
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

impl Authority {
    /// A new one of this name, with a key of its own.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// The certificate of a broker of these names and addresses.
    pub(crate) fn broker(&self, names: &[&str]) -> Identity {
        self.sign(names, |_| ())
    }

    /// One that has expired in May 2021.
    pub(crate) fn expired_broker(&self, names: &[&str]) -> Identity {
        self.sign(names, |params| {
            params.not_before = date_time_ymd(2020, 5, 1);
            params.not_after = date_time_ymd(2021, 5, 1);
        })
    }

    /// The certificate of a client.
    pub(crate) fn client(&self) -> Identity {
        self.client_named("orchestrator")
    }

    /// The same with this common name.
    pub(crate) fn client_named(&self, name: &str) -> Identity {
        self.sign(&["orchestrator"], |params| {
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        })
    }

    fn sign(&self, names: &[&str], change: impl Fn(&mut CertificateParams)) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Identity { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// A listener with this certificate, that trusts this authority's clients.
    pub(crate) fn listener(&self, broker: &Identity, asks_clients: bool) -> Listener {
        let Identity { cert, key } = broker;
        let (ca, cert, key) = (self.pem.clone(), cert.clone(), key.clone());
        Listener { ca, cert, key, asks_clients, certificates_are_users: false }
    }
}
