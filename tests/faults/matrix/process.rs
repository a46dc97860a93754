//! The orchestrator's own process.

use super::{keys, repeated};
use crate::rig::Rig;
use crate::{BROKER, eventually};

/// Kills in one test.
const KILLS: usize = 5;

#[test]
fn kills_under_load_lose_nothing_and_double_nothing() {
    let mut rig = Rig::start("kill", &BROKER.url());
    for round in 0..KILLS {
        rig.place_all(&keys(&format!("R{round}"), 20), &[]);
        // Somewhere within the load, each time elsewhere.
        eventually("messages of this round are out", || {
            let prefix = format!("R{round}-");
            let of_round = |message: &serde_json::Value| {
                message["body"].as_str().is_some_and(|body| body.contains(&prefix))
            };
            rig.messages().iter().filter(|message| of_round(message)).count() > round * 20
        });
        rig.kill();
        rig.restart();
    }
    // Each start tells how many it takes up.
    let log = rig.site.log();
    let taken_up = log.lines().filter(|line| line.contains("instances taken up"));
    let busy = taken_up.filter(|line| !line.contains("instances=0")).count();
    assert!(busy > 0, "every kill came when nothing was under way");
    let evidence = rig.finish();
    evidence.assert_all(KILLS * 20, "completed");
    repeated(&evidence.journal);
}
