//! Compression of payloads: their length, and an LZ4 block.

use std::cell::RefCell;

use lz4_flex::block::{self, CompressTable};

/// How much longer a payload can be than its LZ4 block.
const MAX_RATIO: usize = 255;
/// Bytes of the buffer that a thread keeps, at most.
const KEPT: usize = 64 * 1024;

/// What compressing needs, and each thread keeps.
#[derive(Default)]
struct Workspace {
    table: CompressTable,
    block: Vec<u8>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// The compressed form of a payload, if it is shorter.
pub(super) fn compressed(payload: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok()?;
    WORKSPACE.with_borrow_mut(|workspace| {
        let Workspace { table, block } = workspace;
        let room = block::get_maximum_output_size(payload.len());
        if block.len() < room {
            block.resize(room, 0);
        }
        let written = block::compress_into_with_table(payload, block, table).ok()?;
        let stored = [&length.to_le_bytes(), &block[..written]].concat();
        if block.capacity() > KEPT {
            // The table is a larger one after a large payload, and slower for small ones.
            *workspace = Workspace::default();
        }
        (stored.len() < payload.len()).then_some(stored)
    })
}

/// The payload of which this is the compressed form.
pub(super) fn decompressed(stored: &[u8]) -> Option<Vec<u8>> {
    let (length, block) = block::uncompressed_size(stored).ok()?;
    // Whatever the length says, no more memory is taken than there can be bytes.
    (length <= block.len().saturating_mul(MAX_RATIO)).then(|| block::decompress(block, length).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_comes_back_whatever_was_compressed_before_it() {
        let mut dice = fastrand::Rng::with_seed(1);
        for length in [1, 300, 70_000, 5_000, 200_000, 64] {
            let repeating = |length| b"repeating ".iter().copied().cycle().take(length).collect::<Vec<_>>();
            let payload = [repeating(length), (0..length / 3).map(|_| dice.u8(..)).collect()].concat();
            let Some(stored) = compressed(&payload) else {
                assert!(length == 1, "{length} bytes that repeat themselves can be compressed");
                continue;
            };
            assert!(decompressed(&stored).unwrap() == payload, "length {length}");
            assert!(
                stored == block::compress_prepend_size(&payload),
                "length {length}: by itself, it is the same"
            );
        }
        let noise: Vec<_> = (0..1000).map(|_| dice.u8(..)).collect();
        assert_eq!(compressed(&noise), None, "it would be longer");
    }

    #[test]
    fn what_was_compressed_before_there_was_a_workspace_comes_back() {
        let payload = vec![b'x'; 1000];
        assert_eq!(decompressed(&block::compress_prepend_size(&payload)), Some(payload));
    }
}
