//! Definition files on disk.

mod calls;
mod exchanges;
mod handed;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use crate::saga::code::Code;
use crate::saga::compile;
use crate::saga::definition::MAX_SOURCE;
use crate::saga::plan::Plan;
use crate::saga::problem::Problem;

/// A definition file that holds.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The file, as it is shown to people.
    pub file: String,
    /// Its text, as it is kept in the store.
    pub source: String,
    /// What it means.
    pub plan: Arc<Plan>,
}

/// A folder of definitions, or a single file, and what it held when it was taken into force. Clones are
/// the same.
#[derive(Clone, Debug)]
pub struct Folder {
    path: Arc<Path>,
    adopted: Arc<RwLock<Arc<[Loaded]>>>,
}

/// Definitions that cannot be used; shows every problem, as `sagamq check` does.
#[derive(Debug)]
pub struct DefinitionsError(pub Vec<Problem>);

impl fmt::Display for DefinitionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<_> = self.0.iter().map(Problem::to_string).collect();
        write!(f, "the definitions cannot be used\n\n{}", problems.join("\n\n"))
    }
}

impl std::error::Error for DefinitionsError {}

impl Folder {
    /// Reads a folder, for a start.
    ///
    /// # Errors
    ///
    /// Those of [`load_folder`].
    pub fn open(path: &Path) -> Result<Self, DefinitionsError> {
        let loaded = load_folder(path)?;
        Ok(Self { path: path.into(), adopted: Arc::new(RwLock::new(loaded.into())) })
    }

    /// Reads it as it is now; what is in force stays.
    ///
    /// # Errors
    ///
    /// Those of [`load_folder`].
    pub fn read(&self) -> Result<Vec<Loaded>, DefinitionsError> {
        load_folder(&self.path)
    }

    /// What it held when it was last taken into force.
    pub fn adopted(&self) -> Arc<[Loaded]> {
        Arc::clone(&self.adopted.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says that it was taken into force with this.
    pub(crate) fn set_adopted(&self, loaded: Arc<[Loaded]>) {
        *self.adopted.write().unwrap_or_else(PoisonError::into_inner) = loaded;
    }
}

/// The highest version of each saga: those that start new instances.
pub fn in_force(loaded: &[Loaded]) -> Vec<&Loaded> {
    let mut highest: Vec<&Loaded> = Vec::new();
    for one in loaded {
        match highest.iter_mut().find(|known| known.plan.saga == one.plan.saga) {
            Some(known) if known.plan.version < one.plan.version => *known = one,
            Some(_) => {}
            None => highest.push(one),
        }
    }
    highest
}

/// All definitions of a folder, or of a single file, sorted by path.
///
/// # Errors
///
/// Everything that is wrong with any of them; also a folder without definitions.
pub fn load_folder(path: &Path) -> Result<Vec<Loaded>, DefinitionsError> {
    load_all(&[path.to_owned()])
}

/// All definitions under several paths, sorted by path.
///
/// # Errors
///
/// Those of [`load_folder`].
pub fn load_all(paths: &[PathBuf]) -> Result<Vec<Loaded>, DefinitionsError> {
    let (loaded, problems) = load_paths(paths);
    if problems.is_empty() { Ok(loaded) } else { Err(DefinitionsError(problems)) }
}

/// The same, to be shown: what they call need not be among them.
///
/// # Errors
///
/// Those of [`load_folder`].
pub fn load_alone(paths: &[PathBuf]) -> Result<Vec<Loaded>, DefinitionsError> {
    let (loaded, problems) = load(paths, false);
    if problems.is_empty() { Ok(loaded) } else { Err(DefinitionsError(problems)) }
}

/// The definitions under several paths that hold, and the problems of the others, in the order of files and
/// lines. In a folder, `*.yaml` and `*.yml` count, at any depth, without `*.test.yaml` and what is hidden.
pub fn load_paths(paths: &[PathBuf]) -> (Vec<Loaded>, Vec<Problem>) {
    load(paths, true)
}

/// The same; `is_whole` where all that they call must be among them.
fn load(paths: &[PathBuf], is_whole: bool) -> (Vec<Loaded>, Vec<Problem>) {
    let mut files = Vec::new();
    let mut problems = Vec::new();
    for path in paths {
        let before = (files.len(), problems.len());
        if path.to_str().is_some_and(is_scenario) && path.is_file() {
            problems.push(no_definition(path));
            continue;
        }
        collect(path, is_definition, &mut files, &mut problems);
        if before == (files.len(), problems.len()) {
            let hint = "definitions are files that end in .yaml or .yml";
            let message = "there is no saga definition";
            let file = path.to_string_lossy();
            problems.push(Problem::of_file(Code::NoDefinition, &file, message, Some(hint.to_owned())));
        }
    }
    let (mut loaded, mut broken) = (Vec::new(), Vec::new());
    for file in once_each(files) {
        let name = file.to_string_lossy().into_owned();
        match read(&file) {
            Err(problem) => problems.push(*problem),
            Ok(source) => match compile::load(&name, &source) {
                Ok(plan) => loaded.push(Loaded { file: name, source, plan: Arc::new(plan) }),
                Err(found) => {
                    problems.extend(found);
                    broken.push(source);
                }
            },
        }
    }
    problems.extend(repeats(&loaded));
    let of_calls = calls::problems(&loaded, &broken).into_iter();
    problems.extend(of_calls.filter(|problem| is_whole || problem.code != Code::UnknownSaga));
    problems.extend(handed::problems(&loaded));
    problems.extend(exchanges::problems(&loaded));
    problems.sort_by(|a, b| place(a).cmp(&place(b)));
    loaded.retain(|one| problems.iter().all(|problem| problem.file != one.file));
    (loaded, problems)
}

/// What may be meant otherwise in definitions that hold.
pub fn warnings(loaded: &[Loaded]) -> Vec<Problem> {
    loaded.iter().flat_map(|one| compile::warnings(&one.file, &one.source)).collect()
}

fn place(problem: &Problem) -> (&Path, u32, u32) {
    (Path::new(&problem.file), problem.line, problem.column)
}

/// Files in the order of their paths, each once, however often and in whatever spellings it is named.
fn once_each(mut files: Vec<PathBuf>) -> Vec<PathBuf> {
    files.sort();
    let mut seen = BTreeSet::new();
    files.retain(|file| seen.insert(fs::canonicalize(file).unwrap_or_else(|_| file.clone())));
    files
}

/// What there is to test under several paths.
#[derive(Debug, Default)]
pub struct Tests {
    /// Files and folders of definitions.
    pub definitions: Vec<PathBuf>,
    /// Files of scenarios, as they are shown to people, and their texts.
    pub scenarios: Vec<(String, String)>,
}

/// The definitions and the scenarios under several paths. Beside `order.yaml`, `order.test.yaml` counts too,
/// and the other way round; in a folder, `*.test.yaml` and `*.test.yml`, at any depth.
///
/// # Errors
///
/// What cannot be read.
pub fn tests(paths: &[PathBuf]) -> Result<Tests, Vec<Problem>> {
    let (mut tests, mut files, mut problems) = (Tests::default(), Vec::new(), Vec::new());
    for path in paths {
        let stem = path.with_extension("");
        if path.is_dir() {
            tests.definitions.push(path.clone());
            collect(path, is_scenario, &mut files, &mut problems);
        } else if path.to_str().is_some_and(is_scenario) {
            collect(path, is_scenario, &mut files, &mut problems);
            let beside = ["yaml", "yml"].map(|extension| stem.with_extension(extension));
            tests.definitions.extend(beside.into_iter().filter(|path| path.is_file()));
        } else {
            tests.definitions.push(path.clone());
            let beside = ["test.yaml", "test.yml"].map(|extension| path.with_extension(extension));
            files.extend(beside.into_iter().filter(|path| path.is_file()));
        }
    }
    for file in once_each(files) {
        match read(&file) {
            Ok(source) => tests.scenarios.push((file.to_string_lossy().into_owned(), source)),
            Err(problem) => problems.push(*problem),
        }
    }
    if problems.is_empty() { Ok(tests) } else { Err(problems) }
}

/// Gathers the wanted files at `path`, and what cannot be looked into. A file that is named is taken whatever its
/// name is.
fn collect(path: &Path, is_wanted: fn(&str) -> bool, files: &mut Vec<PathBuf>, problems: &mut Vec<Problem>) {
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => {
            if let Err(error) = collect_within(path, is_wanted, files, problems) {
                problems.push(unreadable(path, &error));
            }
        }
        Ok(about) if about.is_file() || is_handed_in(path) => files.push(path.to_owned()),
        // Nobody knows whether a pipe or a device ever ends.
        Ok(_) => {
            let message = "cannot be read: it is neither a file nor a folder";
            let hint = "write what it gives to a file, or hand it in as /dev/stdin".to_owned();
            problems.push(Problem::of_file(Code::Unreadable, &path.to_string_lossy(), message, Some(hint)));
        }
        Err(error) => problems.push(unreadable(path, &error)),
    }
}

fn collect_within(
    folder: &Path,
    is_wanted: fn(&str) -> bool,
    files: &mut Vec<PathBuf>,
    problems: &mut Vec<Problem>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') {
            continue;
        }
        // Links to folders are not followed, so the walk ends; links to files are, and broken ones are told of.
        if entry.file_type()?.is_dir() {
            collect(&path, is_wanted, files, problems);
        } else if is_wanted(&name) && fs::metadata(&path).map_or(true, |about| about.is_file()) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether a path is what the process was given open, as `/dev/stdin` and as a shell's `<(...)`.
fn is_handed_in(path: &Path) -> bool {
    path == Path::new("/dev/stdin")
        || ["/dev/fd", "/proc/self/fd"].iter().any(|folder| path.starts_with(folder))
}

/// Files are told by the ends of their names, which may be in capitals.
fn is_definition(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    (name.ends_with(".yaml") || name.ends_with(".yml")) && !is_scenario(&name)
}

fn is_scenario(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".test.yaml") || name.ends_with(".test.yml")
}

/// Reads a file, a little beyond the limit at most: the reader of definitions refuses the rest.
fn read(file: &Path) -> Result<String, Box<Problem>> {
    let mut source = Vec::new();
    File::open(file)
        .and_then(|file| file.take(MAX_SOURCE as u64 + 1).read_to_end(&mut source))
        .map_err(|error| unreadable(file, &error))?;
    // What is too large is refused for that, even if it is cut off in the middle of a character.
    if source.len() > MAX_SOURCE {
        return Ok(String::from_utf8_lossy(&source).into_owned());
    }
    String::from_utf8(source).map_err(|error| not_text(file, error.utf8_error().valid_up_to()).into())
}

/// A version of a saga stands in one file only.
fn repeats(loaded: &[Loaded]) -> Vec<Problem> {
    let mut first = BTreeMap::new();
    let mut problems = Vec::new();
    for Loaded { file, plan, .. } in loaded {
        let Some(other) = first.insert((&plan.saga, plan.version), file) else { continue };
        let message = format!("saga {} v{} is already defined in {}", plan.saga, plan.version, other);
        let hint = "raise the version of one of them, or rename the saga".to_owned();
        problems.push(Problem::of_file(Code::RepeatedVersion, file, &message, Some(hint)));
    }
    problems
}

/// What is to be said where a file of scenarios is named for a definition.
fn no_definition(scenarios: &Path) -> Problem {
    let file = scenarios.to_string_lossy();
    let hint =
        format!("`sagamq test {file}` plays them; name the definition that they are about, or its folder");
    Problem::of_file(Code::NoDefinition, &file, "this file holds scenarios, and no definition", Some(hint))
}

fn not_text(file: &Path, valid_bytes: usize) -> Problem {
    let message = format!("cannot be read: it is not text in UTF-8 (byte {})", valid_bytes + 1);
    let hint = "save the file as UTF-8".to_owned();
    Problem::of_file(Code::Unreadable, &file.to_string_lossy(), &message, Some(hint))
}

fn unreadable(path: &Path, error: &io::Error) -> Problem {
    let hint = "check the path and its permissions; `run` takes it from --definitions, else from the setting \
                `definitions`";
    let message = format!("cannot be read: {error}");
    Problem::of_file(Code::Unreadable, &path.to_string_lossy(), &message, Some(hint.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_link_to_nowhere_is_told_by_its_name_and_keeps_no_other_file_from_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("nowhere.yaml", at("broken.yaml")).unwrap();
        symlink("loop.yaml", at("loop.yaml")).unwrap();
        fs::create_dir(at("sub")).unwrap();
        for name in ["a.yaml", "sub/z.yaml"] {
            fs::write(at(name), format!("saga: {}", &name[name.len() - 6..name.len() - 5])).unwrap();
        }
        let (_, problems) = load_paths(&[folder.path().to_owned()]);
        for name in ["broken.yaml", "loop.yaml", "a.yaml", "sub/z.yaml"] {
            let file = at(name).to_string_lossy().into_owned();
            assert!(problems.iter().any(|problem| problem.file == file), "{name}: {problems:?}");
        }
        assert!(problems.iter().all(|problem| !Path::new(&problem.file).is_dir()), "{problems:?}");
    }

    #[test]
    fn what_is_too_large_is_told_as_that_wherever_it_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        // Of the second one, the limit cuts a character of two bytes in half.
        for character in ["#", "é"] {
            fs::write(&file, character.repeat(3_000_003)).unwrap();
            let (_, problems) = load_paths(std::slice::from_ref(&file));
            let told: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
            assert_eq!(told, ["the definition has more than 1048576 bytes"]);
        }
    }

    #[test]
    fn a_file_that_is_not_in_utf_8_is_told_how_to_be_saved_and_where_it_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, b"saga: caf\xe9\n").unwrap();
        let (_, problems) = load_paths(std::slice::from_ref(&file));
        assert_eq!(told(&problems, folder.path()), ["a.yaml S0101"]);
        assert_eq!(problems[0].message, "cannot be read: it is not text in UTF-8 (byte 10)");
        assert_eq!(problems[0].hint.as_deref(), Some("save the file as UTF-8"));
    }

    /// A definition, and which saga its only step calls.
    fn calling(saga: &str, called: &str) -> String {
        format!("saga: {saga}\nversion: 1\nsteps: [{{call: other, saga: {called}}}]\n")
    }

    fn told(problems: &[Problem], folder: &Path) -> Vec<String> {
        let name = |problem: &Problem| Path::new(&problem.file).strip_prefix(folder).unwrap().to_owned();
        problems.iter().map(|problem| format!("{} {}", name(problem).display(), problem.code)).collect()
    }

    #[test]
    fn problems_are_in_the_order_of_files_and_what_has_one_does_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let leaf = "saga: leaf\nversion: 1\nsteps: [{delay: rest, for: 1m}]\n";
        write("a.yaml", &calling("a", "nobody"));
        write("b.yaml", &leaf.replace("1m", "0s"));
        write("c.yaml", leaf);
        write("d.yaml", leaf);
        write("e.yaml", &calling("e", "leaf"));
        let (loaded, problems) = load_paths(&[folder.path().to_owned()]);
        assert_eq!(told(&problems, folder.path()), ["a.yaml S0801", "b.yaml S0501", "d.yaml S0702"]);
        let files: Vec<_> = loaded.iter().filter_map(|one| Path::new(&one.file).file_name()).collect();
        assert_eq!(files, ["c.yaml", "e.yaml"]);
    }

    #[test]
    fn a_saga_whose_file_is_broken_is_not_told_to_be_missing_as_well() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write("a.yaml", &calling("a", "leaf"));
        write("b.yaml", "saga: \"leaf\"  # that is it\nversion: 1\nsteps: \"\n");
        let (_, problems) = load_paths(&[folder.path().to_owned()]);
        assert_eq!(told(&problems, folder.path()), ["b.yaml S0104"]);
    }

    #[test]
    fn a_file_counts_once_in_whatever_spellings_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("a.yaml"), "saga: a\nversion: 1\nsteps: [{delay: rest, for: 1m}]\n").unwrap();
        symlink("a.yaml", at("link.yaml")).unwrap();
        let spellings = [at("a.yaml"), at("./a.yaml"), at("sub/../a.yaml"), at("link.yaml"), at("")];
        let (loaded, problems) = load_paths(&spellings);
        assert_eq!((loaded.len(), problems.len()), (1, 0), "{problems:?}");
    }

    #[test]
    fn the_end_of_a_name_may_be_in_capitals() {
        for (name, definition, scenario) in [
            ("a.yaml", true, false),
            ("A.YAML", true, false),
            ("a.Yml", true, false),
            ("a.test.yaml", false, true),
            ("A.TEST.YML", false, true),
            ("a.json", false, false),
            ("yaml", false, false),
        ] {
            assert_eq!((is_definition(name), is_scenario(name)), (definition, scenario), "{name}");
        }
    }

    #[test]
    fn a_file_of_scenarios_that_is_named_for_a_definition_is_told_to_be_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.test.yaml");
        fs::write(&file, "saga: a\nscenarios: []\n").unwrap();
        let (_, problems) = load_paths(std::slice::from_ref(&file));
        assert_eq!(told(&problems, folder.path()), ["a.test.yaml S0102"]);
        let hint = problems[0].hint.as_deref().unwrap();
        assert!(hint.starts_with(&format!("`sagamq test {}` plays them", file.display())), "{hint}");
    }

    #[test]
    fn a_pipe_is_read_only_where_it_is_handed_in() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["pipe.yaml", "pipe.test.yaml"] {
            let pipe = folder.path().join(name);
            // Not by a process of its own: it would hold the locks of other tests' stores for a moment.
            mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        }
        let named = [folder.path().join("pipe.yaml")];
        let (_, problems) = load_paths(&named);
        assert_eq!(told(&problems, folder.path()), ["pipe.yaml S0101"]);
        let problems = tests(&[folder.path().join("pipe.test.yaml")]).unwrap_err();
        assert_eq!(told(&problems, folder.path()), ["pipe.test.yaml S0101"]);
        for (path, handed_in) in [("/dev/stdin", true), ("/dev/fd/63", true), ("/dev/zero", false)] {
            assert_eq!(is_handed_in(Path::new(path)), handed_in, "{path}");
        }
    }
}
