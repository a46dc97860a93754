//! What the process needs of the system, looked at before anything else is begun: afterwards, libraries would panic
//! or hang for want of it.

use std::io::Write;
use std::os::unix::process::CommandExt;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

/// Bytes of stack for the threads of this process.
///
/// lapin parses the headers of a message by recursion, as deep as their sender nests them, and dropping
/// them recurses too. A frame of 128 KiB holds enough to overflow the usual 2 MiB, which would end the
/// process, at each redelivery again. Address space is reserved, memory only used where it is needed.
const STACK: u64 = 256 << 20;
/// The variable by which the standard library is told.
const STACK_VARIABLE: &str = "RUST_MIN_STACK";
/// Bytes of address space that are reserved at most: some twenty stacks, and what the allocator takes in advance.
const ADDRESS_SPACE: u64 = 8 << 30;
/// Files and connections that are open at most: the API has 128, the rest is for store, broker and log.
const DESCRIPTORS: u64 = 256;

/// The system gives the process too little.
#[derive(Debug, Error)]
pub enum LimitError {
    /// Too little address space.
    #[error(
        "the process may have {} MiB of address space and needs {}, most of it for stacks that are reserved and not \
         used: lift the limit (`ulimit -v unlimited`, LimitAS=infinity of systemd), and bound its memory by a control \
         group instead (MemoryMax= of systemd, --memory of Docker)", .0 >> 20, ADDRESS_SPACE >> 20
    )]
    AddressSpace(u64),
    /// Too few file descriptors.
    #[error(
        "the process may have {0} open files and needs {DESCRIPTORS}: raise the hard limit (`ulimit -Hn`, \
         LimitNOFILE= of systemd, --ulimit nofile= of Docker)"
    )]
    Descriptors(u64),
}

/// Checks the limits of the process, and has it use as many descriptors as it may.
///
/// # Errors
/// There is too little to run.
pub fn check_limits() -> Result<(), LimitError> {
    let Rlimit { current, .. } = getrlimit(Resource::As);
    if let Some(bytes) = current.filter(|bytes| *bytes < ADDRESS_SPACE) {
        return Err(LimitError::AddressSpace(bytes));
    }
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let usable = if raised.is_ok() { maximum } else { current };
    match usable.filter(|files| *files < DESCRIPTORS) {
        Some(files) => Err(LimitError::Descriptors(files)),
        None => Ok(()),
    }
}

/// Starts this program anew with the size of stacks that it needs, unless it has at least that. The standard
/// library reads the size from the environment once, and has no other way for threads of a library.
pub fn with_deep_stacks() {
    if is_deep(std::env::var(STACK_VARIABLE).ok().as_deref()) {
        return;
    }
    let again = |program| {
        let arguments = std::env::args_os().skip(1);
        // Returns only if it cannot.
        std::process::Command::new(program).args(arguments).env(STACK_VARIABLE, STACK.to_string()).exec()
    };
    let error = std::env::current_exe().map_or_else(|error| error, again);
    let warning = format!("cannot start anew with deeper stacks, set {STACK_VARIABLE}={STACK}: {error}");
    let _ = writeln!(std::io::stderr(), "warning: {warning}");
}

fn is_deep(set: Option<&str>) -> bool {
    set.and_then(|bytes| bytes.parse::<u64>().ok()).is_some_and(|bytes| bytes >= STACK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_the_stack_that_is_set_and_ours_is_used() {
        for shallow in [None, Some(""), Some("2097152"), Some("268435455"), Some("deep"), Some("-1")] {
            assert!(!is_deep(shallow), "{shallow:?}");
        }
        assert!(is_deep(Some("268435456")) && is_deep(Some("536870912")));
    }
}
