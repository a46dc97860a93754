//! The JSON text of our own values, and the values of other people's JSON text.

mod strict;

use std::cell::RefCell;

use serde::Serialize;

pub(crate) use self::strict::{RESERVED, read};

/// Bytes of the buffer that a thread keeps, at most.
const KEPT: usize = 64 * 1024;

thread_local! {
    /// Text grows in here, and is copied out once its length is known: so each takes one allocation.
    static GROWING: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// JSON text, without spaces.
pub(crate) fn text(value: &impl Serialize) -> Vec<u8> {
    GROWING.with_borrow_mut(|growing| {
        growing.clear();
        serde_json::to_writer(&mut *growing, value)
            .expect("our values have string keys only, so all are JSON");
        let text = growing.as_slice().to_vec();
        if growing.capacity() > KEPT {
            *growing = Vec::new();
        }
        text
    })
}
