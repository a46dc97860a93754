//! Whole sagas of `sagamq bench`, through engine and store, without a broker: what to profile first.

use divan::Bencher;
use divan::counter::ItemsCount;
use sagamq::bench::{Offline, Until};
use sagamq::config::StoreConfig;
use tempfile::TempDir;

/// Sagas of a sample. The store keeps those of the samples before.
const SAGAS: u64 = 5_000;

#[divan::bench(sample_count = 5, sample_size = 1)]
fn completed(bencher: Bencher<'_, '_>) {
    let folder = folder();
    let mut offline = offline(&folder);
    let mut done = 0;
    bencher.counter(ItemsCount::new(SAGAS)).bench_local(|| {
        offline.run(done..done + SAGAS, Until::Completed, |_| Ok(())).expect("the disk takes it");
        done += SAGAS;
    });
}

/// A folder on the disk of the build.
pub(crate) fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("the folder of the build can be written to")
}

/// An empty store in it.
pub(crate) fn offline(folder: &TempDir) -> Offline {
    let config = StoreConfig { path: folder.path().join("store"), cache_mib: 128 };
    Offline::open(&config, "bench").expect("a new store opens")
}
