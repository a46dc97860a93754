//! Who else may change the files of a store.

use std::fs::{self, Metadata, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use tracing::warn;

use super::error::StoreError;

/// What others may do to a file by its mode.
const WRITABLE_BY_OTHERS: u32 = 0o002;
const WRITABLE_BY_GROUP: u32 = 0o020;

/// Refuses a folder that is somebody else's, that others may write to, or in which a link leads elsewhere.
///
/// # Errors
/// [`StoreError::Unsafe`] with the remedy.
pub(super) fn check(folder: &Path) -> Result<(), StoreError> {
    let metadata = fs::metadata(folder).map_err(StoreError::io("read", folder))?;
    check_owner(folder, &metadata, rustix::process::geteuid().as_raw())?;
    for name in ["lock", "high-water", "log-0", "log-1", "sled"] {
        check_is_no_link(&folder.join(name))?;
    }
    let database = folder.join("sled");
    for entry in fs::read_dir(&database).into_iter().flatten() {
        check_is_no_link(&entry.map_err(StoreError::io("read folder", &database))?.path())?;
    }
    Ok(())
}

fn check_owner(folder: &Path, metadata: &Metadata, user: u32) -> Result<(), StoreError> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    let refused = |problem: String| Err(StoreError::Unsafe { path: folder.to_owned(), problem });
    if owner != user {
        return refused(format!(
            "belongs to user {owner}, and this process is user {user}: run it as that user, or give the whole \
             folder to this one by chown -R"
        ));
    }
    if mode & WRITABLE_BY_OTHERS != 0 {
        return refused(format!(
            "can be written to by everybody (its mode is {mode:o}): take that away by chmod o-w, or name a folder in it"
        ));
    }
    if mode & WRITABLE_BY_GROUP != 0 {
        warn!(store = %folder.display(), mode = format!("{mode:o}"), "the group of the store may write to it");
    }
    Ok(())
}

fn check_is_no_link(path: &Path) -> Result<(), StoreError> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        let problem =
            "is a symbolic link, which is not followed: put what it leads to in its place".to_owned();
        return Err(StoreError::Unsafe { path: path.to_owned(), problem });
    }
    Ok(())
}

/// How a file of the store is opened: made if it is missing, for this user alone, and through no link.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
    options
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::config::StoreConfig;
    use crate::store::Store;

    #[test]
    fn a_folder_that_others_may_write_to_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("store");
        let open = || Store::open(&StoreConfig { path: path.clone(), cache_mib: 16 });
        drop(open().unwrap());
        for (mode, is_refused) in [(0o777, true), (0o702, true), (0o770, false), (0o755, false)] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let refused = open().err().map(|error| error.to_string());
            assert_eq!(refused.is_some(), is_refused, "{mode:o}: {refused:?}");
            assert!(refused.is_none_or(|error| error.contains("chmod o-w")));
        }
    }

    #[test]
    fn a_folder_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let metadata = fs::metadata(folder.path()).unwrap();
        let error = check_owner(folder.path(), &metadata, metadata.uid() + 1).unwrap_err().to_string();
        assert!(error.contains("belongs to user") && error.contains("chown"), "{error}");
    }

    #[test]
    fn no_link_in_the_folder_is_followed() {
        for name in ["lock", "high-water", "log-0", "log-1", "sled/db"] {
            let root = tempfile::tempdir().unwrap();
            let (path, victim) = (root.path().join("store"), root.path().join("victim"));
            fs::write(&victim, "precious").unwrap();
            fs::create_dir_all(path.join("sled")).unwrap();
            symlink(&victim, path.join(name)).unwrap();
            let error = Store::open(&StoreConfig { path: path.clone(), cache_mib: 16 }).err().unwrap();
            assert!(error.to_string().contains("symbolic link"), "{error}");
            assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
            assert!(options().open(path.join(name)).is_err(), "also where it is made between check and open");
        }
    }
}
