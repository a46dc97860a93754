//! Processes that do not outlive the one that started them.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Becomes the command line that is its parameters, beside a process that ends both once its
/// standard input does.
const GUARD: &str = r#"
exec 3<&0 </dev/null
{ read -r _ <&3; kill -KILL 0; } &
exec 3<&-
exec "$@"
"#;

/// Has a command of `/bin/sh` become, under the same process id, the command line that is added to it
/// next, in a process group of its own. Both the end of the child's `stdin` and the end of this process
/// kill the group.
pub(crate) fn guard(shell: &mut Command) {
    shell.args(["-c", GUARD, "guard"]).process_group(0).stdin(Stdio::piped());
}
