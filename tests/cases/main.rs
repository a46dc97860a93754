//! Small inputs that once went wrong, each a folder here: definitions as users write them, and `case.yaml` with what
//! is published, what participants answer, and what must be seen. A folder becomes a test by a line in `cases!`, which
//! has its name. `format.rs` has all that a case may say.
//!
//! A case that is tried, and is no test yet, is played by
//! `CASE=path/to/folder cargo test --test cases -- --ignored --nocapture`.

#![expect(clippy::unwrap_used, reason = "tests")]

/// The proxy of the tests of faults.
#[path = "../faults"]
mod faults {
    #[allow(dead_code, unused_imports, reason = "some of it is for those tests alone")]
    pub(crate) mod proxy;
}
mod format;
#[path = "../cli/peer.rs"]
#[allow(dead_code, reason = "some of it is for the tests of the command line alone")]
mod peer;
mod play;
#[path = "../support/port.rs"]
mod port;
#[path = "../cli/process.rs"]
#[allow(dead_code, reason = "some of it is for the tests of the command line alone")]
mod process;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use sagamq::throwaway::Node;

/// The password that no output may show.
const CANARY: &str = "hunter2-canary";

/// One broker for all cases. Each has a prefix and exchanges of its own there.
static BROKER: LazyLock<Node> = LazyLock::new(support::broker);

/// A test for each folder.
macro_rules! cases {
    ($($name:ident)*) => {
        const NAMES: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                play::play(&Path::new(FOLDER).join(stringify!($name)));
            }
        )*
    };
}

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases");

cases! {
    a_called_saga_is_refused_as_a_scenario_says
    a_reply_in_base64_within_a_cloud_event_is_read
    amounts_and_orders_of_many_digits_arrive_digit_by_digit
    an_approval_whose_ack_is_lost_is_not_the_second_one
    an_error_code_that_is_a_number_ends_the_attempts
    an_event_that_is_true_or_false_is_made_up
    first_messages_of_other_libraries_are_read_or_refused_by_name
    optional_fields_behind_an_index_may_be_null_or_missing
    reminders_and_second_choices_are_played_on_every_path
}

#[test]
fn every_folder_is_a_test() {
    let entries = fs::read_dir(FOLDER).unwrap().map(Result::unwrap);
    let folders = entries.filter(|entry| entry.path().is_dir());
    let folders: BTreeSet<_> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(folders, NAMES.iter().map(ToString::to_string).collect());
}

#[test]
#[ignore = "plays the folder in CASE"]
fn a_case_that_is_tried() {
    play::play(Path::new(&env::var_os("CASE").expect("CASE names a folder")));
}
