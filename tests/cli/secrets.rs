//! The broker's password: nobody is told, wherever one looks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lapin::BasicProperties;

use crate::peer::Peer;
use crate::process::{Running, Site, eventually};
use crate::{BROKER, order, order_saga};

/// A password with all that a URL has to encode, and how it stands in one.
const PASSWORD: &str = "s3cr3t@/:?#%é canary";
const ENCODED: &str = "s3cr3t%40%2F%3A%3F%23%25%C3%A9%20canary";
/// What both have in common, and so any part of them that is worth something.
const PARTS: [&str; 2] = ["s3cr3t", "canary"];

#[test]
fn a_password_from_a_file_is_told_nowhere() {
    BROKER.ctl(&["add_user", "keeper", PASSWORD]).unwrap();
    BROKER.ctl(&["set_permissions", "keeper", ".*", ".*", ".*"]).unwrap();
    let url = BROKER.url().replace("guest:guest@", &format!("keeper:{ENCODED}@"));
    let mut site = Site::with_broker(&order_saga(".secret", "10m"), "", "secret");
    site.write("broker-url", format!("{url}\r\n\n"));
    site.set("BROKER__URL_FILE", "broker-url");
    site.set("LOG__LEVEL", "trace");
    let peer = Peer::connect(&BROKER.url());
    peer.tap("inventory.secret", "secret.tap");
    let mut orchestrator = site.run_until_ready();
    peer.publish("orders.secret", "order.placed", order("A-1", "").as_bytes(), BasicProperties::default());
    peer.publish("orders.secret", "order.placed", b"no order", BasicProperties::default());
    eventually("the order's command is out", || peer.waiting("secret.tap") == 1);
    BROKER.ctl(&["close_all_user_connections", "keeper", "a test"]).unwrap();
    eventually("both connections are lost", || {
        let log = orchestrator.err();
        let is_lost =
            |which: &str| log.lines().any(|line| line.contains("trying again") && line.contains(which));
        is_lost("connection=\"consumer\"") && is_lost("connection=\"publisher\"")
    });
    site.wait_until_ready(&mut orchestrator);

    let id = site.json(&["list", "--json"])["items"][0]["id"].as_str().unwrap().to_owned();
    for path in
        ["livez", "readyz", "metrics", "api/v1/sagas", &format!("api/v1/sagas/{id}"), "api/v1/dead-letters"]
    {
        let page = ureq::get(format!("http://127.0.0.1:{}/{path}", site.port)).call().unwrap();
        let page = page.into_body().read_to_string().unwrap();
        assert!(!page.is_empty(), "{path}");
        assert_untold(path, page.as_bytes());
    }
    for arguments in
        [&["list"][..], &["show", "A-1"], &["dead-letters"], &["topology"], &["check"], &["ready"]]
    {
        assert_untold(arguments[0], site.printed(arguments).as_bytes());
    }
    for file in ["cmdline", "environ", "comm"] {
        assert_untold(file, &of_process(&orchestrator, file));
    }
    let address = BROKER.url().rsplit_once('@').unwrap().1.split('/').next().unwrap().to_owned();
    assert!(of_process(&orchestrator, "environ").windows(10).any(|bytes| bytes == b"broker-url"));
    assert_files_untold(&site.path("sagamq-data"));
    let mode = fs::metadata(site.path("sagamq-data")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    orchestrator.stop();
    assert!(orchestrator.err().contains("trying again"));

    // The password of before is refused, the broker that is gone is not reached: both say which one.
    BROKER.ctl(&["change_password", "keeper", "another"]).unwrap();
    let refused = site.call(&["run"]);
    refused.assert_refused(3, &["refused the user", "check user and password in broker.url"]);
    site.write("broker-url", url.replace(&address, "127.0.0.1:9"));
    site.set("BROKER__STARTUP_TIMEOUT", "1ms");
    let unreached = site.call(&["run"]);
    unreached.assert_refused(3, &["no broker at amqp://keeper@127.0.0.1:9"]);
    for text in [&orchestrator.err(), &orchestrator.out(), &refused.err, &unreached.err] {
        assert_untold("what it prints", text.as_bytes());
    }
}

fn of_process(orchestrator: &Running, file: &str) -> Vec<u8> {
    fs::read(format!("/proc/{}/{file}", orchestrator.pid())).unwrap()
}

fn assert_files_untold(folder: &Path) {
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            assert_files_untold(&entry.path());
        } else {
            assert_untold(&entry.path().display().to_string(), &fs::read(entry.path()).unwrap());
        }
        files += 1;
    }
    assert!(files > 0 || folder.ends_with("blobs"), "{} is empty", folder.display());
}

fn assert_untold(place: &str, text: &[u8]) {
    for part in PARTS {
        let told = text.windows(part.len()).any(|bytes| bytes == part.as_bytes());
        assert!(!told, "a part of the password is in {place}");
    }
}
