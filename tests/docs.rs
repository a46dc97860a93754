//! The documentation says what the code does: its definitions are accepted, its tables are complete.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "docs/language.rs"]
mod language;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::{env, fs, process};

use clap::{CommandFactory, Parser};
use sagamq::catalog::{Catalog, CatalogError};
use sagamq::cli::args::{Cli, Command};
use sagamq::config::Config;
use sagamq::definitions::{self, DefinitionsError};
use sagamq::depict::svg;
use sagamq::saga::code::Code;
use sagamq::saga::compile;
use sagamq::saga::expression::{Expression, Scope};
use sagamq::saga::problem::Problem;
use sagamq::store::{Memory, Store};
use sagamq::trial::{self, Fault, ScenarioFile, Selection};
use serde_json::Value;

const README: &str = include_str!("../README.md");
const CHECK: &str = include_str!("../docs/check.md");
const DEFINITIONS: &str = include_str!("../docs/definitions.md");
const OPERATIONS: &str = include_str!("../docs/operations.md");
const TESTING: &str = include_str!("../docs/testing.md");
const GUARANTEES: &str = include_str!("../docs/guarantees.md");

/// Whole definitions that the pages have at least, so that none is skipped by mistake.
const WHOLE_DEFINITIONS: usize = 8;

/// The fenced blocks of a page in this language.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let fence = format!("\n```{language}\n");
    let after = page.split(fence.as_str()).skip(1);
    after.map(|rest| rest.split_once("\n```").expect("every block has an end").0).collect()
}

/// The rows of the table below a heading whose first columns are these. Cells are trimmed, and hold no `|`.
fn rows<'a>(page: &'a str, header: &str) -> Vec<Vec<&'a str>> {
    let (_, table) = page.split_once(&format!("\n{header}")).expect("the page has the table");
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = |line: &'a str| line[1..].trim_end_matches('|').split('|').map(str::trim).collect();
    lines.map(cells).collect()
}

/// What a cell holds between backticks; nothing if it holds none.
fn code(cell: &str) -> &str {
    cell.split('`').nth(1).unwrap_or("")
}

#[test]
fn every_definition_on_the_pages_is_accepted() {
    let mut whole = 0;
    for (page, text) in [("README.md", README), ("docs/definitions.md", DEFINITIONS)] {
        for source in blocks(text, "yaml") {
            if source.starts_with("saga:") && !source.contains("...") {
                whole += 1;
                if let Err(problems) = compile::load(page, source) {
                    panic!("{page}:\n{source}\n\n{}", problems[0]);
                }
            }
        }
    }
    assert!(whole >= WHOLE_DEFINITIONS, "only {whole} definitions were found");
}

#[test]
fn the_scenarios_on_the_page_come_true() {
    let examples = blocks(TESTING, "yaml");
    let [definition, scenarios, of_items] = examples.as_slice() else {
        panic!("{} examples", examples.len())
    };
    let folder = tempfile::tempdir().unwrap();
    let bulk_order = include_str!("../sagas/bulk_order.yaml");
    for (name, definition) in [("parcel.yaml", *definition), ("bulk_order.yaml", bulk_order)] {
        fs::write(folder.path().join(name), definition).unwrap();
    }
    let (loaded, problems) = definitions::load_paths(&[folder.path().to_owned()]);
    assert!(problems.is_empty(), "{}", shown(&problems));
    let files = [("parcel.test.yaml", scenarios), ("bulk_order.test.yaml", of_items)];
    let files = files.map(|(name, source)| ScenarioFile::parse(name, source).unwrap());
    let problems = trial::problems(&loaded, &files);
    assert!(problems.is_empty(), "{}", shown(&problems));
    let selection = Selection { paths: true, pairs: Some(0), filter: None, time_lines: false };
    let outcome = trial::run(&loaded, &files, selection, &|_, _, _| {}).unwrap();
    assert!(outcome.passed(), "{outcome:#?}");
    assert!(outcome.scenarios.len() >= 6 && outcome.paths() > 30);
}

#[test]
fn every_command_line_on_the_page_about_tests_plays_something_that_holds() {
    // All pairs of all sagas take long, so there is only one.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sagas")).unwrap();
    for name in ["sagas/order.yaml", "sagas/order.test.yaml"] {
        fs::copy(name, folder.path().join(name)).unwrap();
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_sagamq")).parent().unwrap().to_owned();
    let inherited = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths([programs].into_iter().chain(env::split_paths(&inherited))).unwrap();
    let lines = blocks(TESTING, "sh")[0].lines();
    for line in lines {
        let mut shell = process::Command::new("sh");
        let output = shell.args(["-c", line]).current_dir(&folder).env("PATH", &path).output().unwrap();
        let said = [output.stderr, output.stdout].concat();
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&said));
    }
}

#[test]
fn every_field_and_word_of_a_scenario_is_explained() {
    fn names(of: &Value, found: &mut BTreeSet<String>) {
        let nested = match of {
            Value::Object(fields) => {
                let properties = fields.get("properties").and_then(Value::as_object);
                found.extend(properties.into_iter().flat_map(|properties| properties.keys().cloned()));
                found.extend(fields.get("const").and_then(Value::as_str).map(str::to_owned));
                fields.values().collect()
            }
            Value::Array(items) => items.iter().collect(),
            _ => Vec::new(),
        };
        nested.into_iter().for_each(|of| names(of, found));
    }
    let mut found = BTreeSet::new();
    names(&trial::schema(), &mut found);
    assert!(found.len() > 30, "{found:?}");
    let (_, scenarios) = TESTING.split_once("\n## Scenarios\n").unwrap();
    for name in found {
        assert!(scenarios.contains(&format!("`{name}`")), "{name} is not explained");
    }
    for name in ["order", "trip", "signup", "transfer", "bulk_order"] {
        let file = fs::read_to_string(format!("sagas/{name}.test.yaml")).unwrap();
        assert!(file.starts_with("# yaml-language-server: $schema=scenarios.schema.json\n"), "{name}");
    }
}

#[test]
fn every_fault_of_a_path_is_explained() {
    let explained: Vec<_> =
        rows(TESTING, "| Fault | What happens |").iter().map(|row| code(row[0])).collect();
    assert_eq!(explained, Fault::ALL.map(Fault::as_str));
}

#[test]
fn the_picture_on_the_page_is_that_of_the_order_saga() {
    let order = compile::load("sagas/order.yaml", include_str!("../sagas/order.yaml")).unwrap();
    let drawn = include_str!("../docs/order.svg");
    let remedy = "run `sagamq graph sagas/order.yaml --format svg > docs/order.svg`";
    assert!(svg::picture([&order]) == drawn, "{remedy}");
    assert!(DEFINITIONS.contains("](order.svg)"));
}

#[test]
fn every_example_of_an_expression_gives_what_the_page_says() {
    let input: Value = serde_json::from_str(blocks(DEFINITIONS, "json")[0]).unwrap();
    let scope = Scope { input: Some(&input), ..Scope::default() };
    let rows = rows(DEFINITIONS, "| Expression | gives |");
    assert!(rows.len() > 15);
    for row in rows {
        let text = code(row[0]);
        let outcome = Expression::from_text(text).and_then(|expression| expression.evaluate(&scope));
        match (row[1].strip_prefix("error: "), outcome) {
            (Some(expected), Err(error)) => assert_eq!(error.to_string(), expected, "{text}"),
            (None, Ok(value)) => {
                assert_eq!(value, serde_json::from_str::<Value>(code(row[1])).unwrap(), "{text}");
            }
            (_, outcome) => panic!("{text}: {outcome:?}"),
        }
    }
}

/// The sections of the page on problems, one for each code: what stands below `### S0101`.
fn sections() -> Vec<(&'static str, &'static str)> {
    let sections = CHECK.split("\n### S").skip(1).map(|section| section.split("\n## ").next().unwrap());
    sections.map(|section| section.split_once('\n').unwrap()).collect()
}

/// The frame in which examples of problems are to be read.
fn frame() -> &'static str {
    blocks(CHECK, "yaml").into_iter().find(|block| block.starts_with("saga: parcel")).unwrap()
}

/// An example that is to be read in a frame: before it, without the fields that it has.
fn framed(frame: &str, example: &str) -> String {
    if example.starts_with("saga:") {
        return example.to_owned();
    }
    let field = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    let own: Vec<_> = example.lines().map(field).collect();
    let mut source = example.to_owned();
    let mut kept = true;
    for line in frame.lines() {
        kept = if line.starts_with(' ') { kept } else { !own.contains(&field(line)) };
        if kept {
            source += &format!("\n{line}");
        }
    }
    source
}

fn shown(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n")
}

#[test]
fn every_code_of_the_checker_is_explained_under_its_title() {
    let explained: Vec<_> = sections().iter().map(|(number, _)| format!("S{number}")).collect();
    let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(explained, codes);
    for (code, (number, text)) in Code::ALL.iter().zip(sections()) {
        let (_, title) = code.title().split_at(1);
        assert!(text[..text.find(".**").unwrap()].ends_with(title), "S{number}: {title}");
        assert_eq!(code.help(), format!("docs/check.md#s{number}"));
    }
}

#[test]
fn every_example_of_a_problem_is_refused_as_the_page_says_and_mended_by_what_follows() {
    let mut in_files = Vec::new();
    for (code, (_, text)) in Code::ALL.iter().zip(sections()) {
        let (says, examples) = (blocks(text, "text"), blocks(text, "yaml"));
        let [refused, mended] = examples.as_slice() else {
            in_files.push(*code);
            continue;
        };
        let source = framed(frame(), refused);
        let problems = match code.is_warning() {
            true => compile::load("parcel.yaml", &source)
                .map(|_| compile::warnings("parcel.yaml", &source))
                .unwrap(),
            false => compile::load("parcel.yaml", &source).expect_err(code.as_str()),
        };
        assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [*code]);
        assert_eq!(says, [shown(&problems)], "{code}");
        let source = framed(frame(), mended);
        if let Err(problems) = compile::load("parcel.yaml", &source) {
            panic!("{code}: {}", shown(&problems));
        }
        assert_eq!(compile::warnings("parcel.yaml", &source), [], "{code}");
    }
    // What is about files and folders is shown below.
    let of_folders = [
        Code::Unreadable,
        Code::NoDefinition,
        Code::RepeatedVersion,
        Code::ChangedVersion,
        Code::UnknownSaga,
        Code::CalledPivot,
        Code::TooManyLevels,
    ];
    assert_eq!(in_files, of_folders);
}

#[test]
fn every_problem_of_files_and_folders_is_told_as_the_page_says() {
    let folder = tempfile::tempdir().unwrap();
    let sagas = folder.path().join("sagas");
    fs::create_dir(&sagas).unwrap();
    let assert_said = |problems: &[Problem], code: Code| {
        assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [code]);
        let said = shown(problems).replace(&format!("{}/", folder.path().display()), "");
        let section = sections().into_iter().find(|(number, _)| format!("S{number}") == code.as_str());
        assert_eq!(blocks(section.unwrap().1, "text"), [said], "{code}");
    };
    let assert_told = |path: &str, code: Code| {
        let (_, problems) = definitions::load_paths(&[folder.path().join(path)]);
        assert_said(&problems, code);
    };
    assert_told("nowhere.yaml", Code::Unreadable);
    assert_told("sagas", Code::NoDefinition);
    for name in ["first.yaml", "second.yaml"] {
        fs::write(sagas.join(name), framed(frame(), "")).unwrap();
    }
    assert_told("sagas", Code::RepeatedVersion);
    fs::write(sagas.join("second.yaml"), framed(frame(), "version: 2")).unwrap();
    let (loaded, problems) = definitions::load_paths(std::slice::from_ref(&sagas));
    assert_eq!((loaded.len(), problems.len()), (2, 0), "{}", shown(&problems));

    let mut store = Store::simulated(&Memory::default()).unwrap();
    let (_, batch) = Catalog::adopt(&loaded, &store.reader()).unwrap();
    store.commit(batch).unwrap();
    fs::remove_file(sagas.join("second.yaml")).unwrap();
    fs::write(sagas.join("first.yaml"), framed(frame(), "deadline: {after: 2h}")).unwrap();
    let changed = definitions::load_folder(&sagas).unwrap();
    match Catalog::adopt(&changed, &store.reader()) {
        Err(CatalogError::Changed(DefinitionsError(problems))) => {
            assert_said(&problems, Code::ChangedVersion)
        }
        adopted => panic!("{adopted:?}"),
    }

    // One saga that calls another.
    let kind = |kind: &str| framed(frame(), &format!("steps:\n  - {{call: clear, saga: customs{kind}}}"));
    fs::write(sagas.join("first.yaml"), kind("")).unwrap();
    assert_told("sagas", Code::UnknownSaga);
    let with_pivot = "steps: [{step: clear, kind: pivot, command: {exchange: customs, key: clear}}]";
    let customs = framed(frame(), &format!("{with_pivot}\nsaga: customs"));
    fs::write(sagas.join("customs.yaml"), &customs).unwrap();
    assert_told("sagas", Code::CalledPivot);
    fs::write(sagas.join("first.yaml"), kind(", kind: pivot")).unwrap();
    let (loaded, problems) = definitions::load_paths(std::slice::from_ref(&sagas));
    assert_eq!((loaded.len(), problems.len()), (2, 0), "{}", shown(&problems));
    fs::write(sagas.join("customs.yaml"), customs.replace(with_pivot, "steps: [{call: back, saga: parcel}]"))
        .unwrap();
    let assert_codes = |codes: &[Code]| {
        let (_, problems) = definitions::load_paths(std::slice::from_ref(&sagas));
        let are: Vec<_> = problems.iter().map(|problem| problem.code).collect();
        assert_eq!(are, codes, "{}", shown(&problems));
    };
    assert_codes(&[Code::EndlessCalls; 2]);

    // What is done for each item of a list calls as well.
    let each = |called: &str| {
        let steps = format!("[{{foreach: all, items: =input, steps: [{{call: clear, saga: {called}}}]}}]");
        fs::write(sagas.join("first.yaml"), framed(frame(), &format!("steps: {steps}"))).unwrap();
    };
    each("customs");
    assert_codes(&[Code::EndlessCalls; 2]);
    each("parcel");
    assert_codes(&[Code::TooManyLevels, Code::EndlessCalls]);
    each("nobody");
    assert_codes(&[Code::UnknownSaga]);
    fs::write(sagas.join("first.yaml"), kind(", kind: pivot")).unwrap();

    // A chain of nine calls.
    let write = |saga: &str, steps: &str| {
        let source = framed(frame(), &format!("{steps}\nsaga: {saga}"));
        fs::write(sagas.join(format!("{saga}.yaml")), source).unwrap();
    };
    write("customs", "steps: [{call: ask, saga: level_2}]");
    for level in 2..9 {
        write(&format!("level_{level}"), &format!("steps: [{{call: ask, saga: level_{}}}]", level + 1));
    }
    write("level_9", "steps: [{delay: rest, for: 1m}]");
    assert_told("sagas", Code::TooManyLevels);
    write("level_8", "steps: [{delay: rest, for: 1m}]");
    let (_, problems) = definitions::load_paths(std::slice::from_ref(&sagas));
    assert_eq!(shown(&problems), "");
    write("level_8", "steps: [{foreach: all, items: =input, steps: [{delay: rest, for: 1m}]}]");
    assert_told("sagas", Code::TooManyLevels);
}

#[test]
fn the_table_of_settings_is_complete_and_has_the_defaults() {
    let rows = rows(OPERATIONS, "| Key | Environment variable |");
    let keys: BTreeSet<_> = rows.iter().map(|row| code(row[0]).to_owned()).collect();
    assert_eq!(keys.len(), rows.len());
    // A new section does not compile here.
    let Config { broker: _, store: _, retention: _, definitions: _, http: _, log: _ } = Config::default();
    let mut known = BTreeSet::from(["definitions".to_owned()]);
    for section in ["broker", "store", "retention", "http", "log"] {
        let refused = from_file(&format!("{section}: 1\n")).unwrap_err();
        let (_, names) = refused.split_once("it is a section: ").expect("sections tell their keys");
        known.extend(names.split(", ").map(str::to_owned));
    }
    assert_eq!(keys, known);

    for row in rows {
        let (key, variable, flag, default) = (code(row[0]), code(row[1]), code(row[2]), code(row[3]));
        let quoted = format!("'{default}'");
        let file = match key.split_once('.') {
            Some((section, name)) => format!("{section}:\n  {name}: {quoted}\n"),
            None => format!("{key}: {quoted}\n"),
        };
        assert_eq!(from_file(&file), Ok(Config::default()), "{key}");
        assert_eq!(variable, format!("SAGAMQ_{}", key.replace('.', "__").to_uppercase()));
        let environment = [(OsString::from(variable), OsString::from(default))];
        let empty = tempfile::NamedTempFile::new().unwrap();
        let config = Config::load(Some(empty.path()), environment, Vec::new()).unwrap();
        assert_eq!(config, Config::default(), "{variable}");
        if !flag.is_empty() {
            let Command::Run(run) = Cli::try_parse_from(["sagamq", "run", flag, default]).unwrap().command
            else {
                panic!("not run");
            };
            let set: Vec<_> = run.into_overrides().into_iter().map(|flag| flag.key).collect();
            assert_eq!(set, [key], "{flag}");
        }
    }
}

/// The settings of a file alone.
fn from_file(text: &str) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    Config::load(Some(file.path()), [], Vec::new()).map_err(|error| error.to_string())
}

#[test]
fn every_flag_of_run_stands_in_the_table_of_settings() {
    let of_table: BTreeSet<_> = rows(OPERATIONS, "| Key | Environment variable |")
        .iter()
        .map(|row| code(row[2]).to_owned())
        .collect();
    let command = Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let flags = run.get_arguments().filter_map(|argument| argument.get_long()).filter(|name| *name != "help");
    for flag in flags {
        assert!(of_table.contains(&format!("--{flag}")), "--{flag}");
    }
}

#[test]
fn every_subcommand_is_explained() {
    let explained: Vec<_> = rows(OPERATIONS, "| Command | What it does |");
    for subcommand in Cli::command().get_subcommands().map(clap::Command::get_name) {
        let is_row = |row: &Vec<&str>| code(row[0]).split(' ').nth(1) == Some(subcommand);
        assert!(explained.iter().any(is_row), "{subcommand}");
    }
}

#[test]
fn every_route_and_every_metric_is_explained() {
    let between = |source: &'static str, before: &'static str| -> BTreeSet<String> {
        let after = source.split(before).skip(1);
        after.filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
    };
    let named = |header: &str| -> BTreeSet<String> {
        rows(OPERATIONS, header).iter().map(|row| code(row[0]).to_owned()).collect()
    };
    let routes = between(include_str!("../src/http/api.rs"), ".route(\"");
    assert_eq!(named("| Route | Answers |"), routes);
    let metrics = between(include_str!("../src/metric.rs"), ": &str = \"");
    assert_eq!(named("| Name | Type | Labels |"), metrics);
}

/// All Rust files below a folder.
fn sources(folder: &str) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_str().unwrap();
        match path.extension() {
            _ if path.is_dir() => text += &sources(name),
            Some(extension) if extension == "rs" => text += &fs::read_to_string(&path).unwrap(),
            _ => {}
        }
    }
    text
}

#[test]
fn every_fault_that_is_promised_to_be_borne_names_tests_that_exist() {
    let tests = sources("tests");
    let rows = rows(GUARANTEES, "| Fault | What happens | Shown by |");
    assert!(rows.len() > 20);
    for row in rows {
        let names: Vec<_> = row[2].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{} is shown by nothing", row[0]);
        for name in names {
            assert!(tests.contains(&format!("#[test]\nfn {name}() {{")), "there is no test {name}");
        }
    }
}
