//! What clients may do to the API, by raw sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::fixture::{instances, served_within};
use super::server::{LIMITS, Limits};

const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

const READY: &str = "GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Says something, on a connection of its own.
fn say(url: &str, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// All that the server says until it closes the connection.
fn heard(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => panic!("the connection stays: {error}"),
        _ => String::from_utf8(bytes).unwrap(),
    }
}

/// The first line of an answer.
fn answer(mut stream: &TcpStream) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    String::from_utf8(line).unwrap().trim_end().to_owned()
}

fn order(verb: &str) -> String {
    let body = format!(r#"{{"verb": "{verb}", "actor": "ann", "reason": "why"}}"#);
    format!(
        "POST /api/v1/sagas/{}/orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        instances()[2].0.id,
        body.len()
    )
}

#[tokio::test]
async fn who_only_holds_connections_keeps_nobody_out() {
    served_within(LIMITS, |url, _| {
        let mut idle: Vec<_> = (0..1_100).map(|_| say(url, "")).collect();
        let (mut headers, mut bodies) =
            (say(url, "GET /livez HTTP/1.1\r\n"), say(url, "POST / HTTP/1.1\r\n"));
        assert_eq!(answer(&say(url, READY)), "HTTP/1.1 200 OK");
        idle.truncate(idle.len() - LIMITS.connections);
        for stream in idle {
            assert_eq!(heard(stream), "", "the oldest gave way");
        }
        headers.write_all(b"host: localhost\r\n\r\n").unwrap();
        assert_eq!(answer(&headers), "HTTP/1.1 200 OK", "the newest stay");
        bodies.write_all(b"\r\n").unwrap();
    })
    .await;
}

#[tokio::test]
async fn requests_beyond_the_bound_are_refused_and_not_queued() {
    served_within(Limits { connections: 2, ..LIMITS }, |url, _| {
        // Orders that nobody answers. One that is not read yet may give way.
        let mut busy = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while answer(&say(url, READY)) != "HTTP/1.1 503 Service Unavailable" {
            assert!(Instant::now() < deadline, "both are never busy");
            busy.push(say(url, &order("compensate")));
        }
        drop(busy);
        while answer(&say(url, READY)) != "HTTP/1.1 200 OK" {
            assert!(Instant::now() < deadline, "there is never room again");
        }
    })
    .await;
}

#[tokio::test]
async fn every_part_of_a_request_has_its_time() {
    let limits = Limits { opening: SHORT, body: SHORT, answer: SHORT, idle: SHORT, ..LIMITS };
    served_within(limits, |url, _| {
        assert_eq!(heard(say(url, "")), "");
        assert_eq!(heard(say(url, "GET /livez HTTP/1.1\r\nhost: local")), "");
        let half = order("skip").replace("why\"}", "");
        let told = heard(say(url, &half));
        assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("\"too_slow\""), "{told}");
        let told = heard(say(url, &order("compensate")));
        assert!(told.starts_with("HTTP/1.1 503 ") && told.contains("\"unavailable\""), "{told}");
        let told = heard(say(url, READY));
        assert!(told.starts_with("HTTP/1.1 200 ") && told.ends_with("ok\n"), "idle ones are closed: {told}");
        // A header that comes bit by bit is no quicker.
        let mut slow = say(url, "GET /livez HTTP/1.1\r\nhost: localhost\r\n");
        let begun = Instant::now();
        while slow.write_all(b"x: y\r\n").is_ok() {
            assert!(begun.elapsed() < PATIENCE, "it may go on for ever");
            std::thread::yield_now();
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    served_within(LIMITS, |url, _| {
        let body = format!(
            "POST /api/v1/definitions/reload HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n",
            1 << 20
        );
        assert_eq!(answer(&say(url, &body)), "HTTP/1.1 413 Payload Too Large");
        let chunks =
            "POST / HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n10000\r\n".to_owned();
        assert_eq!(
            answer(&say(url, &(chunks + &"x".repeat(1 << 16) + "\r\n1\r\nx\r\n"))),
            "HTTP/1.1 413 Payload Too Large"
        );
        let header = format!("GET /livez HTTP/1.1\r\nhost: localhost\r\nx: {}", "x".repeat(65_536));
        assert_eq!(answer(&say(url, &header)), "HTTP/1.1 431 Request Header Fields Too Large");
    })
    .await;
}

#[tokio::test]
async fn a_stop_ends_in_time_whatever_clients_do() {
    let took = served_within(LIMITS, |url, _| {
        let mut held = vec![say(url, ""), say(url, READY), say(url, "GET /livez HTTP/1.1\r\nhost: local")];
        held.push(say(url, &order("compensate")));
        held.push(say(url, &order("skip").replace("why\"}", "")));
        held.extend((0..100).map(|_| say(url, "GET /api/v1/sagas HTTP/1.1\r\nhost: localhost\r\n\r\n")));
        assert_eq!(answer(&held[1]), "HTTP/1.1 200 OK");
        // They stay open beyond the stop.
        std::mem::forget(held);
    })
    .await;
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn only_its_own_names_are_answered() {
    served_within(LIMITS, |url, _| {
        let port = url.rsplit(':').next().unwrap();
        let ask = |host: &str| {
            heard(say(url, &format!("GET /livez HTTP/1.1\r\nconnection: close\r\nhost: {host}\r\n\r\n")))
        };
        let own = [
            "localhost",
            "LOCALHOST.",
            "a.localhost:1",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]:80",
            "saga.example",
            "Saga.Example:80",
        ];
        for host in own.map(str::to_owned).into_iter().chain([format!("127.0.0.1:{port}")]) {
            assert!(ask(&host).starts_with("HTTP/1.1 200 "), "{host}: {}", ask(&host));
        }
        for host in [
            "evil.example",
            "evil.example:7654",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.1.2.3",
            "x.saga.example",
            "[2001:db8::1]",
        ] {
            let told = ask(host);
            assert!(told.starts_with("HTTP/1.1 421 ") && told.contains("http.hosts"), "{host}: {told}");
        }
        for host in ["", "a b", "localhost\r\nhost: evil.example"] {
            assert!(!ask(host).starts_with("HTTP/1.1 200 "), "{host:?}: {}", ask(host));
        }
        let whole = "GET http://evil.example/livez HTTP/1.1\r\nhost: localhost\r\n\r\n";
        assert_eq!(answer(&say(url, whole)), "HTTP/1.1 421 Misdirected Request");
        assert_eq!(answer(&say(url, "GET /livez HTTP/1.1\r\n\r\n")), "HTTP/1.1 400 Bad Request");
        assert_eq!(answer(&say(url, "GET /livez HTTP/1.0\r\n\r\n")), "HTTP/1.0 200 OK");
    })
    .await;
}

#[tokio::test]
async fn no_answer_may_be_kept_guessed_at_or_framed() {
    served_within(LIMITS, |url, _| {
        for path in ["/livez", "/readyz", "/metrics", "/api/v1/sagas", "/api/v1/sagas/x", "/none"] {
            let told = heard(say(
                url,
                &format!("GET {path} HTTP/1.1\r\nconnection: close\r\nhost: localhost\r\n\r\n"),
            ));
            for header in [
                "x-content-type-options: nosniff",
                "cache-control: no-store",
                "content-security-policy: default-src 'none'; frame-ancestors 'none'",
                "x-frame-options: DENY",
            ] {
                assert!(told.contains(header), "{path}: {told}");
            }
        }
    })
    .await;
}
