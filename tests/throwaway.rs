//! A throw-away broker comes up, keeps its data over restarts, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sagamq::throwaway::Node;

#[test]
fn a_node_keeps_its_data_over_a_kill_and_a_restart() {
    let mut node = support::broker();
    node.ctl(&["add_vhost", "kept"]).unwrap();
    let url = node.url();

    node.kill();
    assert!(!listens(&url));
    node.restart().unwrap();
    assert_eq!(node.url(), url);
    assert!(listens(&url));
    assert!(node.ctl(&["list_vhosts"]).unwrap().contains("kept"));

    node.restart().unwrap();
    assert!(node.ctl(&["list_vhosts"]).unwrap().contains("kept"));
    node.close_connections().unwrap();
    assert!(node.ctl(&["no_such_command"]).is_err());

    drop(node);
    assert!(!listens(&url));
    assert!(folders_of(std::process::id()).is_empty());
}

#[test]
fn a_node_ends_when_its_owner_is_killed() {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--exact", "holds_a_node_until_it_is_killed", "--nocapture"];
    let mut owner = Command::new(program).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let url = lines.map(Result::unwrap).find(|line| line.starts_with("amqp://")).unwrap();
    assert!(listens(&url));
    assert!(!folders_of(owner.id()).is_empty());

    owner.kill().unwrap();
    owner.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while listens(&url) || !folders_of(owner.id()).is_empty() {
        assert!(Instant::now() < deadline, "the node of a dead process still runs at {url}");
        std::thread::yield_now();
    }
}

#[test]
#[ignore = "run by a_node_ends_when_its_owner_is_killed"]
fn holds_a_node_until_it_is_killed() {
    let node: Node = support::broker();
    println!("\n{}", node.url());
    loop {
        std::thread::park();
    }
}

fn listens(url: &str) -> bool {
    let address = url.rsplit('@').next().unwrap().trim_end_matches("/%2f");
    TcpStream::connect(address).is_ok()
}

fn folders_of(process: u32) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap();
    let prefix = format!("sagamq-{process}-");
    entries
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}
