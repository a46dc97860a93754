//! TLS to real brokers: with and without client certificates, and all that may not fit.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use sagamq::amqp::{Topology, probe};
use sagamq::config::{BrokerConfig, Secret, TlsConfig};
use sagamq::throwaway::{Listener, Node, test_root};
use tempfile::TempDir;

use crate::certificates::{Authority, Identity};
use crate::order_saga;
use crate::port::free_port;
use crate::process::{Site, eventually};

/// The name of the brokers; they are reached at 127.0.0.1.
const NAME: &str = "mq.test";

/// Who signs, and two brokers with its certificate: one that takes clients as they come, and one that asks
/// for their certificates.
struct World {
    authority: Authority,
    open: Node,
    strict: Node,
}

/// A broker that has the user `orchestrator`, who is known by a certificate alone.
static KNOWING: LazyLock<(Authority, Node)> = LazyLock::new(|| {
    let authority = Authority::new("Our CA");
    let listener = authority.listener(&authority.broker(&[NAME]), true);
    let listener = Listener { certificates_are_users: true, ..listener };
    let node = Node::start_with_tls(test_root().as_deref(), &listener).unwrap();
    node.ctl(&["add_user", "orchestrator", "a password that nobody gives"]).unwrap();
    node.ctl(&["set_permissions", "orchestrator", ".*", ".*", ".*"]).unwrap();
    (authority, node)
});

/// The URL by which the client certificate is the user.
fn as_certified(node: &Node) -> String {
    node.tls_url().replace("guest:guest@", "") + "?auth_mechanism=external"
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let authority = Authority::new("Our CA");
    let broker = authority.broker(&[NAME]);
    let [open, strict] = [false, true].map(|asks| node(&authority, &broker, asks));
    World { authority, open, strict }
});

fn node(authority: &Authority, broker: &Identity, asks_clients: bool) -> Node {
    Node::start_with_tls(test_root().as_deref(), &authority.listener(broker, asks_clients)).unwrap()
}

/// A folder with files for `broker.tls`.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Trusts this authority, and knows the broker by its name.
    fn trusting(&self, authority: &Authority) -> TlsConfig {
        let ca = Some(self.write("ca.pem", &authority.pem));
        TlsConfig { ca, server_name: Some(NAME.to_owned()), ..TlsConfig::default() }
    }

    /// The same with a client certificate.
    fn trusting_as(&self, authority: &Authority, client: &Identity) -> TlsConfig {
        let (cert, key) = (self.write("cert.pem", &client.cert), self.write("key.pem", &client.key));
        TlsConfig { cert: Some(cert), key: Some(key), ..self.trusting(authority) }
    }
}

/// Connects and declares queues, or tells why not.
fn tried(url: &str, tls: TlsConfig) -> Result<(), String> {
    let (url, startup_timeout) = (Secret::new(url), Duration::from_millis(1));
    let config =
        BrokerConfig { url, tls, startup_timeout, prefix: "tls".to_owned(), ..BrokerConfig::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let topology = Topology::of(&config, []);
    runtime.block_on(probe(&config, &topology)).map_err(|error| error.to_string())
}

/// Why there is no connection to a broker: `{url}` in what is expected stands for its URL without password.
#[track_caller]
fn assert_told(url: &str, tls: TlsConfig, expected: &str) {
    let told = tried(url, tls).unwrap_err();
    let expected = expected.replace("{url}", &url.replace(":guest@", "@"));
    assert!(told.starts_with(&expected), "{told}\nis not\n{expected}");
}

/// Why there is no connection to any broker.
#[track_caller]
fn assert_unusable(tls: TlsConfig, expected: &str) {
    assert_told(&format!("amqps://guest:guest@127.0.0.1:{}/%2f", free_port()), tls, expected);
}

fn in_plain(node: &Node) -> String {
    node.tls_url().replace("amqps://", "amqp://")
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn a_broker_is_reached_by_the_issuer_and_the_name_that_are_set() {
    let files = Files::new();
    assert_eq!(tried(&WORLD.open.tls_url(), files.trusting(&WORLD.authority)), Ok(()));
}

#[test]
fn a_broker_that_asks_for_a_client_certificate_is_given_it() {
    let (files, client) = (Files::new(), WORLD.authority.client());
    assert_eq!(tried(&WORLD.strict.tls_url(), files.trusting_as(&WORLD.authority, &client)), Ok(()));
}

#[test]
fn a_client_certificate_that_is_missing_is_told() {
    let tls = Files::new();
    let tls = tls.trusting(&WORLD.authority);
    let expected = "the broker at {url} asks for a client certificate (TLS alert ";
    // Not by luck: the broker's word comes at the same time as ours goes out.
    for _ in 0..10 {
        assert_told(&WORLD.strict.tls_url(), tls.clone(), expected);
    }
}

#[test]
fn a_client_certificate_of_a_stranger_is_told() {
    let (files, stranger) = (Files::new(), Authority::new("Nobody").client());
    let tls = files.trusting_as(&WORLD.authority, &stranger);
    let cert = shown(tls.cert.as_deref().unwrap());
    let expected = format!(
        "the broker at {{url}} refused the client certificate in broker.tls.cert, {cert} (TLS alert "
    );
    assert_told(&WORLD.strict.tls_url(), tls, &expected);
}

#[test]
fn with_auth_mechanism_external_the_client_certificate_is_the_user() {
    let (authority, broker) = &*KNOWING;
    let mut site = Site::with_broker(&order_saga(".certified", "10m"), &as_certified(broker), "certified");
    let client = authority.client();
    for (name, text) in [("ca", &authority.pem), ("cert", &client.cert), ("key", &client.key)] {
        site.write(&format!("{name}.pem"), text);
        site.set(&format!("BROKER__TLS__{}", name.to_uppercase()), &format!("{name}.pem"));
    }
    site.set("BROKER__TLS__SERVER_NAME", NAME);
    let mut orchestrator = site.run_until_ready();
    let connections = broker.ctl(&["list_connections", "user", "auth_mechanism", "ssl"]).unwrap();
    let ours = connections.lines().filter(|line| *line == "orchestrator\tEXTERNAL\ttrue").count();
    assert_eq!(ours, 3, "{connections}");
    orchestrator.stop();
}

#[test]
fn a_client_certificate_of_which_the_broker_has_no_user_is_told() {
    let ((authority, broker), files) = (&*KNOWING, Files::new());
    let tls = files.trusting_as(authority, &authority.client_named("somebody"));
    let url = as_certified(broker);
    let shown = url.replace("?auth_mechanism=external", "");
    let expected = format!(
        "broker at {shown} takes the client certificate in broker.tls.cert for no user: ACCESS_REFUSED"
    );
    assert_told(&url, tls, &expected);
}

#[test]
fn auth_mechanism_external_without_a_client_certificate_or_tls_is_told() {
    let files = Files::new();
    let (authority, expected) = (&WORLD.authority, "broker.url has auth_mechanism=external, so the client");
    assert_told(&as_certified(&WORLD.open), files.trusting(authority), expected);
    let plain = as_certified(&WORLD.open).replace("amqps://", "amqp://");
    assert_told(&plain, files.trusting_as(authority, &authority.client()), expected);
}

#[test]
fn auth_mechanism_external_at_a_broker_without_its_plugin_is_told() {
    let files = Files::new();
    let tls = files.trusting_as(&WORLD.authority, &WORLD.authority.client());
    let told = tried(&as_certified(&WORLD.strict), tls).unwrap_err();
    assert!(told.contains("takes the broker's plugin rabbitmq_auth_mechanism_ssl"), "{told}");
}

#[test]
fn tls_to_a_port_without_is_told() {
    let (files, url) = (Files::new(), WORLD.open.url().replace("amqp://", "amqps://"));
    assert_told(
        &url,
        files.trusting(&WORLD.authority),
        "the port of the broker at {url} does not speak TLS; name",
    );
}

#[test]
fn no_tls_to_a_port_with_is_told() {
    let expected = "the port of the broker at {url} speaks TLS; begin broker.url with amqps://";
    for node in [&WORLD.open, &WORLD.strict] {
        assert_told(&in_plain(node), TlsConfig::default(), expected);
    }
}

#[test]
fn an_issuer_that_is_not_trusted_is_told_with_where_it_was_looked_for() {
    let files = Files::new();
    // Of the same name, too, as after an authority was made anew.
    for other in [Authority::new("Another CA"), Authority::new("Our CA")] {
        let tls = files.trusting(&other);
        let ca = shown(tls.ca.as_deref().unwrap());
        let expected = format!(
            "the certificate of the broker at {{url}} does not come from an issuer in broker.tls.ca, {ca}; put the issuer's"
        );
        assert_told(&WORLD.open.tls_url(), tls, &expected);
    }
}

#[test]
fn a_certificate_of_another_name_is_told_with_both() {
    let files = Files::new();
    let tls = TlsConfig { server_name: None, ..files.trusting(&WORLD.authority) };
    let expected =
        "the certificate of the broker at {url} is for mq.test, not for 127.0.0.1; name the broker so";
    assert_told(&WORLD.open.tls_url(), tls, expected);
}

#[test]
fn a_certificate_that_has_expired_is_told_with_its_day() {
    let (authority, files) = (Authority::new("Old CA"), Files::new());
    let node = node(&authority, &authority.expired_broker(&[NAME]), false);
    let expected = "the certificate of the broker at {url}, or of its issuer, expired on 2021-05-01 at 00:00:00 UTC; renew";
    assert_told(&node.tls_url(), files.trusting(&authority), expected);
}

#[test]
fn files_that_cannot_be_used_are_told_with_their_setting() {
    let (files, authority) = (Files::new(), Authority::new("CA"));
    let good = files.trusting_as(&authority, &authority.client());
    let told = |name: &str, text: &str, expected: &str| {
        let path = files.write(&format!("bad-{name}"), text);
        let mut tls = good.clone();
        match name {
            "ca" => tls.ca = Some(path.clone()),
            "cert" => tls.cert = Some(path.clone()),
            _ => tls.key = Some(path.clone()),
        }
        assert_unusable(tls, &expected.replace("{path}", &shown(&path)));
    };
    for name in ["ca", "cert"] {
        let none = format!("cannot use broker.tls.{name}, {{path}}: it holds no certificate in PEM");
        told(name, "", &none);
        told(name, "\u{30}\u{2}\u{1}", &none);
        let half = authority.pem.split("-----END").next().unwrap();
        told(
            name,
            half,
            &format!("cannot use broker.tls.{name}, {{path}}: it is not whole PEM: a part has no"),
        );
    }
    let foreign = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n";
    told("ca", foreign, "cannot use broker.tls.ca, {path}: a certificate in it is broken: ");
    told("cert", foreign, "cannot use broker.tls.cert, {path}: ");
    told("key", &authority.pem, "cannot use broker.tls.key, {path}: it holds no private key in PEM");
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAMCAQA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    told(
        "key",
        encrypted,
        "cannot use broker.tls.key, {path}: it is encrypted with a password; `openssl pkey",
    );
    let broken = "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
    told("key", broken, "cannot use broker.tls.key, {path}: it is of a kind that is not supported");

    let other = files.write("other.pem", authority.client().key);
    let cert = shown(good.cert.as_deref().unwrap());
    let expected = format!(
        "the key in broker.tls.key, {}, is not that of the first certificate in broker.tls.cert, {cert}; name the key",
        shown(&other)
    );
    assert_unusable(TlsConfig { key: Some(other), ..good.clone() }, &expected);

    let nowhere = PathBuf::from("/no/such.pem");
    let expected =
        "cannot read broker.tls.ca, /no/such.pem: No such file or directory (os error 2); check the path";
    assert_unusable(TlsConfig { ca: Some(nowhere), ..good.clone() }, expected);
    let expected = "cannot read broker.tls.cert, /: it is not a file; check";
    assert_unusable(TlsConfig { cert: Some(PathBuf::from("/")), ..good.clone() }, expected);
    let expected = "broker.tls.cert is set without broker.tls.key; a client certificate needs both";
    assert_unusable(TlsConfig { key: None, ..good.clone() }, expected);
    let expected = "broker.tls.key is set without broker.tls.cert; a client certificate needs both";
    assert_unusable(TlsConfig { cert: None, ..good.clone() }, expected);
    let expected = "broker.tls.ca is set, but broker.url begins with amqp://, so nothing would be encrypted";
    assert_told(&in_plain(&WORLD.open), good, expected);
}

#[test]
fn certificates_are_exchanged_while_it_runs() {
    let (old, new) = (Authority::new("Last year's CA"), Authority::new("This year's CA"));
    let mut broker = node(&old, &old.broker(&[NAME]), true);
    let mut site = Site::with_broker(&order_saga(".tls", "10m"), &broker.tls_url(), "rotated");
    let put = |site: &Site, authority: &Authority, client: &Identity| {
        site.write("ca.pem", &authority.pem);
        site.write("cert.pem", &client.cert);
        site.write("key.pem", &client.key);
    };
    put(&site, &old, &old.client());
    for name in ["ca", "cert", "key"] {
        site.set(&format!("BROKER__TLS__{}", name.to_uppercase()), &format!("{name}.pem"));
    }
    site.set("BROKER__TLS__SERVER_NAME", NAME);
    let mut orchestrator = site.run_until_ready();
    let says = |words: &str| eventually(words, || orchestrator.err().contains(words));

    site.write("key.pem", "not a key");
    says("the files of broker.tls have changed, and no connection can be opened with them");
    let client = new.client();
    put(&site, &new, &client);
    says("the files of broker.tls have changed: they are used from the next connection on");
    broker.exchange_certificates(&new.listener(&new.broker(&[NAME]), true)).unwrap();
    broker.restart().unwrap();
    site.wait_until_ready(&mut orchestrator);
    let connections = broker.ctl(&["list_connections", "ssl", "peer_cert_issuer"]).unwrap();
    let ours: Vec<_> = connections.lines().filter(|line| line.starts_with("true")).collect();
    assert!(ours.len() >= 2, "{connections}");
    assert!(ours.iter().all(|line| line.contains("This year's CA")), "{connections}");
    let log = orchestrator.err();
    assert!(
        client.key.lines().skip(1).all(|line| line.starts_with("-----END") || !log.contains(line)),
        "{log}"
    );
}

#[test]
fn a_broker_whose_issuer_the_system_trusts_needs_no_settings() {
    let files = Files::new();
    let (authority, url) = (Authority::new("Public CA"), |node: &Node| node.tls_url());
    let node = node(&authority, &authority.broker(&["127.0.0.1"]), false);
    let store = files.write("system.pem", &authority.pem);
    let site = Site::with_broker(&order_saga(".trusted", "10m"), &url(&node), "trusted");
    let ended = |store: &Path| {
        let mut command = site.command(&["run"]);
        command.env("SSL_CERT_FILE", store).env("SAGAMQ_BROKER__STARTUP_TIMEOUT", "1ms");
        command
    };
    let stranger = files.write("stranger.pem", &Authority::new("Stranger").pem);
    let refused = ended(&stranger).output().unwrap();
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        told.contains("does not come from an issuer in the system's store of trusted certificates"),
        "{told}"
    );
    let mut running = site.spawn(ended(&store));
    site.wait_until_ready(&mut running);
}
