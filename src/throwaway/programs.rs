//! Where RabbitMQ's programs are.

use std::ffi::OsString;
use std::path::PathBuf;

use super::NodeError;

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

/// The programs that a node needs.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) server: PathBuf,
    pub(super) ctl: PathBuf,
    pub(super) epmd: PathBuf,
}

impl Programs {
    pub(super) fn find() -> Result<Self, NodeError> {
        let program = |name| locate(name).ok_or(NodeError::NotFound(name));
        Ok(Self { server: program("rabbitmq-server")?, ctl: program("rabbitmqctl")?, epmd: program("epmd")? })
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
pub(super) fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    std::env::join_paths(folders).unwrap_or(path)
}
