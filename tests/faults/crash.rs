//! SIGKILL at every point on the way of a delivery.

use std::time::Duration;

use sagamq::fault::Point;

use crate::rig::Rig;
use crate::{BROKER, eventually};

#[test]
fn a_sigkill_at_every_point_of_the_cycle_loses_nothing() {
    let mut rig = Rig::start("crash", &BROKER.url());
    let load = rig.load(Duration::from_millis(150));
    eventually("orders are under way", || load.placed() > 50);
    rig.kill();
    for point in Point::ALL {
        // Once at the first passage, which is the hardest for a start, and once under way.
        let once_a_life = matches!(point, Point::Recovered | Point::Stopping);
        for passages in [0, 9].into_iter().take(if once_a_life { 1 } else { 2 }) {
            rig.boot(&format!("{}={passages}*off->return", point.name()));
            let mut poisoned = 0;
            eventually(&format!("it dies at {point:?} after {passages} passages"), || {
                if point == Point::Rejected && rig.site.is_ready() {
                    poisoned += 1;
                    rig.place_garbage("events", &format!("poison-{passages}-{poisoned}"), b"{\"order_id\"");
                }
                if point == Point::Stopping && rig.site.is_ready() {
                    rig.orchestrator().terminate();
                }
                if matches!(point, Point::Reload | Point::Reloaded) && rig.site.is_ready() {
                    rig.orchestrator().hang_up();
                }
                rig.orchestrator().is_killed()
            });
            rig.faulted(&format!("kill_at_{}", point.name()));
        }
    }
    drop(load);
    rig.restart();
    let evidence = rig.finish();
    println!("{}", evidence.report);
}
