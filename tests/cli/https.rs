//! What asks an orchestrator, at a proxy that speaks TLS.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::{Authority, Identity};
use crate::process::Site;
use crate::{BROKER, order_saga};

/// Starts a proxy with a certificate before an orchestrator, and returns its URL. It ends with the tests.
fn proxy(identity: &Identity, port: u16) -> String {
    let cert = CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![cert], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
    thread::spawn(move || {
        for client in listener.incoming() {
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            // A client that does not believe the certificate goes away.
            let _ = pass_on(StreamOwned::new(tls, client.unwrap()), port);
        }
    });
    url
}

/// Passes one request on, and its answer back.
fn pass_on(mut client: StreamOwned<ServerConnection, TcpStream>, port: u16) -> std::io::Result<()> {
    let request = message(&mut client)?;
    let mut orchestrator = TcpStream::connect(("127.0.0.1", port))?;
    orchestrator.write_all(&request)?;
    let answer = message(&mut orchestrator)?;
    client.write_all(&answer)?;
    client.conn.send_close_notify();
    client.flush()
}

/// A whole message of HTTP.
fn message(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") {
        from.read_exact(&mut byte)?;
        bytes.extend(byte);
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    from.read_exact(&mut body)?;
    bytes.extend(body);
    Ok(bytes)
}

#[test]
fn a_proxy_with_tls_is_asked_where_its_issuer_is_named_or_trusted_by_the_system() {
    let authority = Authority::new("Our CA");
    let mut site = Site::with_broker(&order_saga(".https", "10m"), &BROKER.url(), "https");
    site.write("ca.pem", &authority.pem);
    let url = proxy(&authority.broker(&["127.0.0.1"]), site.port);
    let mut orchestrator = site.run_until_ready();
    assert_eq!(site.printed(&["--url", &url, "--ca", "ca.pem", "ready"]), "ready\n");
    assert_eq!(site.printed(&["list", "--url", &url, "--ca", "ca.pem"]), "no sagas\n");
    assert_eq!(site.printed(&["reload", "--url", &url, "--ca", "ca.pem"]), site.printed(&["reload"]));
    let unknown = site.call(&["--url", &url, "ready"]);
    let told =
        [&*url, "is not believed to be the one that is meant", "UnknownIssuer", "--ca or SAGAMQ_CA names"];
    unknown.assert_refused(3, &told);
    let mut trusting = site.command(&["--url", &url, "ready"]);
    trusting.env("SSL_CERT_FILE", site.path("ca.pem"));
    assert_eq!(trusting.output().unwrap().stdout, b"ready\n");

    // The variable does as well, and is in the way of nothing else.
    site.set("CA", "ca.pem");
    assert_eq!(site.printed(&["--url", &url, "ready"]), "ready\n");
    assert_eq!(site.printed(&["ready"]), "ready\n");
    assert_eq!(site.printed(&["--url", &format!("http://127.0.0.1:{}", site.port), "ready"]), "ready\n");
    orchestrator.stop();
    site.run_until_ready().stop();
}

#[test]
fn a_certificate_of_another_name_and_a_port_without_tls_are_told() {
    let authority = Authority::new("Our CA");
    let site = Site::with_broker(&order_saga(".plain", "10m"), &BROKER.url(), "plain");
    site.write("ca.pem", &authority.pem);
    let url = proxy(&authority.broker(&["sagas.example"]), site.port);
    let told = ["is not believed to be the one that is meant", "sagas.example"];
    site.call(&["--url", &url, "--ca", "ca.pem", "ready"]).assert_refused(3, &told);
    let mut orchestrator = site.run_until_ready();
    let plain = format!("https://127.0.0.1:{}", site.port);
    let told = [&*plain, "does not speak TLS", "begin the address with http://"];
    site.call(&["--url", &plain, "--ca", "ca.pem", "ready"]).assert_refused(2, &told);
    orchestrator.stop();
}

#[test]
fn a_file_of_issuers_that_is_of_no_use_is_told() {
    let site = Site::new(&order_saga(".none", "10m"));
    site.write("empty.pem", "");
    site.write("half.pem", "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n");
    let told = |file: &str, parts: &[&str]| {
        let called = site.call(&["--url", "https://127.0.0.1:1", "--ca", file, "ready"]);
        called.assert_refused(
            2,
            &[&[&*format!("cannot use the file of --ca or SAGAMQ_CA, {file}: ")], parts].concat(),
        );
    };
    told("nowhere.pem", &["No such file"]);
    told("empty.pem", &["holds no certificate in PEM"]);
    told("half.pem", &["is not whole PEM"]);
    told("sagas", &["is not a file"]);
    let unused = ["--ca names a file of issuers, but http://127.0.0.1", "nothing would be encrypted"];
    site.call(&["--ca", "empty.pem", "ready"]).assert_refused(2, &unused);
    let url = format!("http://127.0.0.1:{}", site.port);
    site.call(&["--url", &url, "--ca", "empty.pem", "ready"]).assert_refused(2, &unused);
    site.call(&["--ca", "empty.pem", "run"]).assert_refused(2, &["--ca whom to believe"]);
}
