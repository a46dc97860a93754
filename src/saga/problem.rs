//! Problems: what is wrong with a definition, and where.

use std::fmt;
use std::ops::Range;

use serde_json::{Value, json};

use super::code::Code;
use super::yaml::Place;

/// Most characters of a line that are shown.
const MAX_SNIPPET: usize = 120;
/// Most characters of a message or a hint, which may name what stands in the file.
const MAX_MESSAGE: usize = 500;

/// Most findings of one definition.
const MAX_FINDINGS: usize = 100;
/// Longest name, in characters.
pub(super) const MAX_NAME: usize = 64;

/// Something that is wrong at a place of a definition.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) code: Code,
    pub(crate) at: Place,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// What was found in a definition, up to a bound: a person mends the first ones first.
#[derive(Debug, Default)]
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    /// Keeps it, unless there are enough.
    pub(super) fn push(&mut self, finding: Finding) {
        if !self.are_enough() {
            self.0.push(finding);
        }
    }

    /// Whether no more are kept.
    pub(super) fn are_enough(&self) -> bool {
        self.0.len() >= MAX_FINDINGS
    }

    /// All of them in the order of the file, each once.
    pub(super) fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by(|a, b| (a.at, &a.message).cmp(&(b.at, &b.message)));
        self.0.dedup();
        self.0
    }
}

/// Something that is wrong with a definition file, with the line that it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind of problem it is.
    pub code: Code,
    /// The file, as it was named.
    pub file: String,
    /// Line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The line itself, or the part of a long one that matters.
    pub snippet: String,
    /// Which characters of the snippet are meant.
    pub marks: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem of a file as a whole, such as one that cannot be read.
    pub fn of_file(code: Code, file: &str, message: &str, hint: Option<String>) -> Self {
        Self {
            code,
            file: file.to_owned(),
            line: 0,
            column: 0,
            snippet: String::new(),
            marks: 0..0,
            message: bounded(message),
            hint: hint.as_deref().map(bounded),
        }
    }

    /// A problem at a place of `source`.
    pub(crate) fn at(file: &str, source: &str, finding: Finding) -> Self {
        let Finding { code, at: place, message, hint } = finding;
        let line = line_of(source, place.line);
        let length = line.chars().count();
        let mut start = place.column.saturating_sub(1).min(length);
        let mut end = (start + place.width).clamp(start, length.max(start));
        let cut = if length > MAX_SNIPPET { start.saturating_sub(MAX_SNIPPET / 3) } else { 0 };
        start -= cut;
        end = (end - cut).clamp(start, MAX_SNIPPET.max(start));
        Self {
            line: u32::try_from(place.line).unwrap_or(u32::MAX),
            column: u32::try_from(place.column).unwrap_or(u32::MAX),
            snippet: line.chars().skip(cut).take(MAX_SNIPPET).map(plain).collect(),
            marks: start..end,
            ..Self::of_file(code, file, &message, hint)
        }
    }

    /// The column behind what is meant; `None` where that has no width.
    pub fn end_column(&self) -> Option<u32> {
        let width = u32::try_from(self.marks.len()).ok().filter(|width| *width > 0)?;
        Some(self.column.saturating_add(width))
    }

    /// The same for programs. A problem of a file as a whole has no line, no column and no snippet.
    pub fn to_json(&self) -> Value {
        let in_file = self.line > 0;
        json!({
            "code": self.code.as_str(),
            "title": self.code.title(),
            "file": self.file,
            "line": in_file.then_some(self.line),
            "column": in_file.then_some(self.column),
            "end_column": self.end_column(),
            "snippet": in_file.then_some(&self.snippet),
            "message": self.message,
            "hint": self.hint,
            "help": self.code.help(),
        })
    }
}

impl fmt::Display for Problem {
    /// In the style of rustc, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = if self.code.is_warning() { "warning" } else { "error" };
        write!(f, "{level}[{}]: {}", self.code, self.message)?;
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        if self.line == 0 {
            write!(f, "\n --> {}", self.file)?;
        } else {
            let indent = " ".repeat(self.marks.start);
            let marks = "^".repeat(self.marks.len().max(1));
            write!(f, "\n{margin}--> {}:{}:{}", self.file, self.line, self.column)?;
            write!(f, "\n{margin} |\n{number} | {}\n{margin} | {indent}{marks}", self.snippet)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n{margin} = hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

/// A line, from 1. For YAML a carriage return alone ends one, too.
pub(super) fn line_of(source: &str, number: usize) -> String {
    let source = source.replace("\r\n", "\n");
    source.split(['\n', '\r']).nth(number.saturating_sub(1)).unwrap_or_default().to_owned()
}

/// Line and column at which a part of a source stands first, as problems have them; for tests.
#[cfg(test)]
pub(crate) fn place_of(part: &str, source: &str) -> (u32, u32) {
    let (before, _) = source.split_once(part).unwrap();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (u32::try_from(line).unwrap(), u32::try_from(column).unwrap())
}

/// Control characters could move the marks, or do worse to a terminal.
fn plain(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// A text that may hold what stands in the file, safe to show.
fn bounded(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_MESSAGE).map(plain).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}

/// The candidate that `word` is most likely a misspelling of. What is longer than any name is none:
/// to compare two texts takes as long as one is times the other.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > MAX_NAME {
        return None;
    }
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= MAX_NAME)
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line_as_rustc_does() {
        let source = "steps:\n\tretry: fst\n";
        let hint = Some("did you mean `fast`?".to_owned());
        let at = Place { line: 2, column: 9, width: 3 };
        let message = "unknown retry policy".to_owned();
        let finding = Finding { code: Code::UnknownPolicy, at, message, hint };
        let problem = Problem::at("sagas/order.yaml", source, finding);
        let expected = "\
error[S0203]: unknown retry policy
 --> sagas/order.yaml:2:9
  |
2 |  retry: fst
  |         ^^^
  = hint: did you mean `fast`?";
        assert_eq!(problem.to_string(), expected);
        assert_eq!(problem.end_column(), Some(12));
    }

    #[test]
    fn of_a_long_line_the_part_that_matters_is_shown() {
        let source = format!("{}wrong{}", "é".repeat(5000), "x".repeat(5000));
        let at = Place { line: 1, column: 5001, width: 5 };
        let finding = Finding { code: Code::Syntax, at, message: "m\n".repeat(1000), hint: None };
        let problem = Problem::at("f", &source, finding);
        let marked: String =
            problem.snippet.chars().skip(problem.marks.start).take(problem.marks.len()).collect();
        assert_eq!((marked.as_str(), problem.snippet.chars().count()), ("wrong", MAX_SNIPPET));
        assert_eq!(problem.message, "m ".repeat(MAX_MESSAGE / 2) + "...");
    }

    #[test]
    fn every_line_break_of_yaml_counts() {
        for source in ["a\nb\nwrong\n", "a\r\nb\r\nwrong", "a\rb\rwrong\r"] {
            let at = Place { line: 3, column: 1, width: 5 };
            let finding = Finding { code: Code::UnknownField, at, message: String::new(), hint: None };
            assert_eq!(Problem::at("f", source, finding).snippet, "wrong");
        }
    }

    #[test]
    fn a_misspelling_is_told_from_another_word() {
        assert_eq!(closest("inptu", ["input", "event"]), Some("input"));
        assert_eq!(closest("customer", ["input", "event"]), None);
        assert_eq!(closest(&"x".repeat(65), ["x".repeat(64).as_str()]), None);
    }
}
