//! The table of when to look again, with as many instances in it as may be open.

use divan::Bencher;
use sagamq::saga::id::InstanceId;
use sagamq::saga::time::Timestamp;
use sagamq::timers::Timers;

/// Instances in the table.
const OPEN: [i64; 2] = [1_000, 100_000];

#[divan::bench(args = OPEN)]
fn arm(bencher: Bencher<'_, '_>, open: i64) {
    let (mut timers, ids) = table(open);
    let mut turn = 0;
    bencher.bench_local(|| {
        turn += 1;
        let at = usize::try_from(turn % open).expect("it is not negative");
        timers.arm(ids[at], Some(Timestamp(open + turn)));
    });
}

#[divan::bench(args = OPEN)]
fn fire(bencher: Bencher<'_, '_>, open: i64) {
    let (mut timers, _) = table(open);
    let mut now = 0;
    bencher.bench_local(|| {
        let id = timers.pop_due(Timestamp(now)).expect("one is due each millisecond");
        timers.arm(id, Some(Timestamp(now + open)));
        now += 1;
    });
}

/// One is due each millisecond.
fn table(open: i64) -> (Timers, Vec<InstanceId>) {
    let mut timers = Timers::default();
    let ids: Vec<_> = (0..open).map(|number| InstanceId::new("order", &number.to_string())).collect();
    for (due, id) in (0..).zip(&ids) {
        timers.arm(*id, Some(Timestamp(due)));
    }
    (timers, ids)
}
