//! One atomic write, one flush, one fdatasync, on a real disk.

use std::cell::RefCell;

use divan::Bencher;
use divan::counter::ItemsCount;
use sagamq::engine::Gathered;

use crate::saga;

/// So many instances start in one commit.
#[divan::bench(args = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512], sample_count = 30, sample_size = 1)]
fn starts(bencher: Bencher<'_, '_>, batch: u64) {
    let folder = saga::folder();
    let offline = RefCell::new(saga::offline(&folder));
    let mut decided = 0;
    let mut decide = || {
        decided += batch;
        offline.borrow_mut().started(decided - batch..decided).expect("the store can be read")
    };
    let commit = |gathered: Gathered| offline.borrow_mut().commit(gathered).expect("the disk takes it");
    // The first ones make the files that the others find.
    for _ in 0..3 {
        commit(decide());
    }
    bencher.with_inputs(decide).counter(ItemsCount::new(batch)).bench_local_values(commit);
}
