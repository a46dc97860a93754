//! Where RabbitMQ's programs are, and how to run them there.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::output::output;
use super::{CTL_TIMEOUT, NodeError};

/// Where the server really is on Debian and Fedora. What these put in `PATH` is a wrapper that
/// changes to the user `rabbitmq`, or refuses.
const UNWRAPPED: &str = "/usr/lib/rabbitmq/bin";
/// Folders that are often missing in `PATH`.
const FOLDERS: [&str; 7] = [
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/bin",
    "/usr/local/bin",
    "/opt/homebrew/sbin",
    "/opt/homebrew/bin",
    "/usr/lib/erlang/bin",
];

/// Runs a program in a system of its own; its parameters are that system's root, the folder for
/// temporary files, which is the same inside and outside, and the command line.
///
/// It runs in a mount namespace of its own, so that what is mounted ends with it.
const ENTER: &str = r#"
root=$1 tmp=$2
shift 2
mkdir -p "$root$tmp" && mount --rbind /proc "$root/proc" && mount --rbind /dev "$root/dev" &&
    mount --bind "$tmp" "$root$tmp" && exec chroot "$root" "$@"
"#;

/// The programs that a node needs.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) server: PathBuf,
    pub(super) ctl: PathBuf,
    pub(super) epmd: PathBuf,
    /// The root of the system that they are in, where it is not this one.
    root: Option<PathBuf>,
}

impl Programs {
    /// Those in the system under a root, or those of this machine.
    pub(super) fn find(root: Option<&Path>) -> Result<Self, NodeError> {
        root.map_or_else(Self::find_here, Self::find_in)
    }

    /// Runs a program of the same system, one of these or another, with an environment that holds
    /// nothing but where programs are.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = match &self.root {
            None => Command::new(program),
            Some(root) => {
                let mut command = Command::new("unshare");
                command.args(["--mount", "/bin/sh", "-c", ENTER, "enter"]);
                command.arg(root).arg(std::env::temp_dir()).arg(program);
                command
            }
        };
        command.env_clear().env("PATH", search_path());
        command
    }

    fn find_here() -> Result<Self, NodeError> {
        let program = |name| locate(name).ok_or(NodeError::NotFound(name));
        Ok(Self {
            server: program("rabbitmq-server")?,
            ctl: program("rabbitmqctl")?,
            epmd: program("epmd")?,
            root: None,
        })
    }

    /// Those of a Debian system.
    fn find_in(root: &Path) -> Result<Self, NodeError> {
        let refused = |reason: String| NodeError::Root { root: root.into(), reason };
        let root = root.canonicalize().map_err(|error| refused(error.to_string()))?;
        let bin = Path::new(UNWRAPPED);
        let [server, ctl] = ["rabbitmq-server", "rabbitmqctl"].map(|name| bin.join(name));
        let inside = server.strip_prefix("/").unwrap_or(&server);
        if !root.join(inside).exists() {
            return Err(refused(format!("it has no {}", server.display())));
        }
        let programs = Self { server, ctl, epmd: "/usr/bin/epmd".into(), root: Some(root) };
        // Tried here, because of a server that cannot be reached a node could only say that it ended.
        match output(programs.command(Path::new("/bin/true")), CTL_TIMEOUT) {
            Ok(_) => Ok(programs),
            Err(NodeError::Command { output, .. }) => Err(refused(output)),
            Err(error) => Err(refused(error.to_string())),
        }
    }
}

/// Where a program is, if it is installed.
pub(super) fn locate(name: &str) -> Option<PathBuf> {
    let folders = std::iter::once(PathBuf::from(UNWRAPPED));
    folders
        .chain(std::env::split_paths(&search_path()))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// `PATH`, and what is often missing in it.
fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or(path)
}
