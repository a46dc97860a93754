//! Problems: what is wrong with a definition, and where.

use std::fmt;
use std::ops::Range;

use super::yaml::Place;

/// Most characters of a line that are shown.
const MAX_SNIPPET: usize = 120;

/// Something that is wrong with a definition file, with the line that it is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
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
    pub fn of_file(file: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            snippet: String::new(),
            marks: 0..0,
            message: message.into(),
            hint,
        }
    }

    /// A problem at a place of `source`.
    pub(super) fn at(file: &str, source: &str, place: Place, message: String, hint: Option<String>) -> Self {
        let line = source.lines().nth(place.line.saturating_sub(1)).unwrap_or_default();
        let length = line.chars().count();
        let mut start = place.column.saturating_sub(1).min(length);
        let mut end = (start + place.width).clamp(start, length.max(start));
        let cut = if length > MAX_SNIPPET { start.saturating_sub(MAX_SNIPPET / 3) } else { 0 };
        start -= cut;
        end = (end - cut).clamp(start, MAX_SNIPPET.max(start));
        // Control characters could move the marks, or do worse to a terminal.
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        Self {
            line: u32::try_from(place.line).unwrap_or(u32::MAX),
            column: u32::try_from(place.column).unwrap_or(u32::MAX),
            snippet: line.chars().skip(cut).take(MAX_SNIPPET).map(plain).collect(),
            marks: start..end,
            ..Self::of_file(file, message, hint)
        }
    }
}

impl fmt::Display for Problem {
    /// In the style of rustc, without a line break at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
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

/// The candidate that `word` is most likely a misspelling of.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
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
        let place = Place { line: 2, column: 9, width: 3 };
        let problem = Problem::at("sagas/order.yaml", source, place, "unknown retry policy".to_owned(), hint);
        let expected = "\
error: unknown retry policy
 --> sagas/order.yaml:2:9
  |
2 |  retry: fst
  |         ^^^
  = hint: did you mean `fast`?";
        assert_eq!(problem.to_string(), expected);
    }

    #[test]
    fn of_a_long_line_the_part_that_matters_is_shown() {
        let source = format!("{}wrong{}", "é".repeat(5000), "x".repeat(5000));
        let place = Place { line: 1, column: 5001, width: 5 };
        let problem = Problem::at("f", &source, place, "m".to_owned(), None);
        let marked: String =
            problem.snippet.chars().skip(problem.marks.start).take(problem.marks.len()).collect();
        assert_eq!((marked.as_str(), problem.snippet.chars().count()), ("wrong", MAX_SNIPPET));
    }

    #[test]
    fn a_misspelling_is_told_from_another_word() {
        assert_eq!(closest("inptu", ["input", "event"]), Some("input"));
        assert_eq!(closest("customer", ["input", "event"]), None);
    }
}
