//! A participant that is a real Celery worker, which knows nothing of sagas.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use lapin::BasicProperties;
use serde_json::{Value, json};

use crate::BROKER;
use crate::peer::Peer;
use crate::process::{Site, eventually};
use crate::skip::skip;

/// A worker; killed with the value.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_celery_worker_does_and_undoes_the_steps_of_a_saga_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let celery = root.join("target/celery/bin/celery");
    if !celery.is_file() {
        return skip("there is no Celery in target/celery: `scripts/setup test` installs it");
    }
    let saga = include_str!("../../examples/celery/order.yaml");
    let site = Site::with_broker(saga, &BROKER.url(), "celery");
    let peer = Peer::connect(&BROKER.url());
    let mut orchestrator = site.run_until_ready();
    let arguments = "-A tasks worker --pool solo --without-gossip --without-mingle --without-heartbeat";
    let started = Command::new(celery)
        .args(arguments.split(' '))
        .current_dir(root.join("examples/celery"))
        .env("BROKER_URL", BROKER.url())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _worker = Worker(started.unwrap());
    let listed = || BROKER.ctl(&["list_queues", "name", "consumers", "--silent"]).unwrap();
    eventually("the worker listens", || listed().lines().any(|line| line == "shop.tasks\t1"));
    for (order, amount) in [("A-1", 10), ("A-2", 1000)] {
        let body = json!({"order_id": order, "items": ["BOOK"], "amount": amount}).to_string();
        let properties = BasicProperties::default().with_message_id(order.into());
        peer.publish("shop", "order.placed", body.as_bytes(), properties);
    }
    let show = |order: &str| -> Value {
        serde_json::from_str(&site.call(&["show", order, "--json"]).out).unwrap_or_default()
    };
    eventually("one order is done", || show("A-1")["status"] == "completed");
    eventually("the other is undone", || show("A-2")["status"] == "compensated");
    assert_eq!(show("A-1")["steps"][0]["output"], json!({"reservation_id": "r-A-1"}));
    assert_eq!(show("A-2")["error"]["code"], "DECLINED");
    assert_eq!(site.json(&["dead-letters", "--json"])["items"], json!([]));
    orchestrator.stop();
}
