//! The archive: JSON lines in gzip files, each of many members.
//!
//! A member is written as a whole and synced. What may be torn, because the process died or the disk was
//! full, is never written behind: each process and each day has a file of its own.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::saga::time::Timestamp;

/// A folder of files, of which one is written.
#[derive(Debug)]
pub(super) struct Archive {
    folder: PathBuf,
    /// The file that is written, and its day. It ends with a whole member.
    current: Option<(PathBuf, String)>,
}

/// Why something is not in the archive.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot {action} {path}: {source}; make room, mend its permissions, or set retention.archive to \
     another folder"
)]
pub(super) struct ArchiveError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl Archive {
    /// An archive in a folder, which is made (mode 0700) when it is needed.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, current: None }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Appends lines. Once this returns, they survive a power cut.
    ///
    /// # Errors
    /// The folder or its file cannot be written. The lines are not there then, or in a file that is not
    /// written any more.
    pub(super) fn append(&mut self, lines: &[u8], now: Timestamp) -> Result<(), ArchiveError> {
        let now = now.to_string();
        let today = now.split('T').next().unwrap_or(&now);
        // Whoever has moved a file away has it for himself.
        let current = self.current.take().filter(|(path, day)| day == today && path.exists());
        let path = match current {
            Some((path, _)) => path,
            None => self.begin(&now)?,
        };
        let member = compressed(lines).map_err(failed("compress what goes to", &path))?;
        append(&path, &member).map_err(failed("write", &path))?;
        self.current = Some((path, today.to_owned()));
        Ok(())
    }

    /// Makes an empty file that survives a power cut.
    fn begin(&self, now: &str) -> Result<PathBuf, ArchiveError> {
        let folder = &self.folder;
        if !folder.is_dir() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(failed("make folder", folder))?;
            let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
            sync(parent.unwrap_or(Path::new("."))).map_err(failed("sync the folder of", folder))?;
        }
        let stem = now.replace(':', "");
        let mut path = folder.join(format!("{stem}.jsonl.gz"));
        // Another process of this moment, or of the same one by a clock that was set back, has it already.
        for number in 2.. {
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    path.set_file_name(format!("{stem}-{number}.jsonl.gz"));
                }
                made => {
                    made.map_err(failed("make", &path))?;
                    break;
                }
            }
        }
        sync(folder).map_err(failed("sync", folder))?;
        Ok(path)
    }
}

fn compressed(lines: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(lines)?;
    encoder.finish()
}

/// Appends to a file as a whole, or, as far as the disk lets it, not at all.
fn append(path: &Path, member: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    let length = file.metadata()?.len();
    let written = file.write_all(member).and_then(|()| file.sync_all());
    if written.is_err() {
        // Only for tidiness: the file is not written any more.
        let _ = if length == 0 { std::fs::remove_file(path) } else { file.set_len(length) };
    }
    written
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ArchiveError {
    let path = path.to_owned();
    move |source| ArchiveError { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read;

    use flate2::read::MultiGzDecoder;

    use super::*;

    /// 2026-11-20T21:45:00Z
    const NOW: Timestamp = Timestamp(1_795_211_100_000);

    fn files(folder: &Path) -> BTreeSet<PathBuf> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    }

    fn text(path: &Path) -> io::Result<String> {
        let mut text = String::new();
        MultiGzDecoder::new(File::open(path)?).read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn what_follows_a_torn_member_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::new(folder.path().join("a/b"));
        archive.append(b"1\n", NOW).unwrap();
        archive.append(b"2\n", Timestamp(NOW.0 + 1)).unwrap();
        let [torn] = files(archive.folder()).into_iter().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(torn.file_name().unwrap(), "2026-11-20T214500.000Z.jsonl.gz");
        assert_eq!(text(&torn).unwrap(), "1\n2\n");
        let length = std::fs::metadata(&torn).unwrap().len();
        OpenOptions::new().write(true).open(&torn).unwrap().set_len(length - 3).unwrap();
        // The process that died goes on as another.
        let mut archive = Archive::new(archive.folder);
        archive.append(b"2\n", Timestamp(NOW.0 + 1000)).unwrap();
        archive.append(b"3\n", Timestamp(NOW.0 + 2000)).unwrap();
        let mut after = files(archive.folder());
        assert!(after.remove(&torn));
        assert!(text(&torn).is_err());
        assert_eq!(text(after.first().unwrap()).unwrap(), "2\n3\n");
    }

    #[test]
    fn each_day_has_a_file_and_one_that_was_moved_away_is_not_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::new(folder.path().to_owned());
        archive.append(b"1\n", NOW).unwrap();
        archive.append(b"2\n", Timestamp(NOW.0 + 86_400_000)).unwrap();
        let names = files(folder.path());
        assert_eq!(names.iter().map(|name| text(name).unwrap()).collect::<Vec<_>>(), ["1\n", "2\n"]);
        std::fs::remove_file(names.last().unwrap()).unwrap();
        archive.append(b"3\n", Timestamp(NOW.0 + 86_401_000)).unwrap();
        assert_eq!(text(files(folder.path()).last().unwrap()).unwrap(), "3\n");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "").unwrap();
        let error = Archive::new(path.join("archive")).append(b"1\n", NOW).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("cannot make folder {}", path.join("archive").display())),
            "{error}"
        );
        assert!(error.ends_with("or set retention.archive to another folder"), "{error}");
    }
}
