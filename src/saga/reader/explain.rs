//! What the YAML reader says, in our words: with the field, what was found and what may stand there.

use serde_saphyr::Error as Yaml;
use serde_saphyr::budget::BudgetBreach;

use super::{
    MAX_ALIASES, MAX_ANCHORS, MAX_DEPTH, MAX_MERGES, MAX_NODES, MAX_SOURCE, OF_BLOCKS, TOLD_BY_FIRST,
};
use crate::saga::code::Code;
use crate::saga::problem::{Finding, Problem, closest, line_of};
use crate::saga::yaml::Place;

/// Most characters of a value that are shown.
const MAX_FOUND: usize = 40;

/// Turns an error of the YAML reader into a problem.
pub(super) fn explain(file: &str, source: &str, error: &Yaml) -> Problem {
    let error = error.without_snippet();
    // What is wrong where an alias stands is wrong in what it stands for.
    let cause = match error {
        Yaml::AliasError { error, .. } => error.without_snippet(),
        other => other,
    };
    let at = error.location().filter(|location| location.line() > 0).map(Place::from);
    let at = match cause {
        Yaml::SerdeMissingField { .. } => at.map(|at| first_of_block(source, at)),
        _ => at,
    };
    let written = at.map(|at| Written::at(source, at)).unwrap_or_default();
    let (message, hint) = told(cause, &written);
    let hint = hint.or_else(|| written.is_left_out.then(|| LEFT_OUT.to_owned()));
    let hint = hint.or_else(|| of_other_languages(cause, &written).map(str::to_owned));
    let code = code(cause);
    match at {
        Some(at) => Problem::at(file, source, Finding { code, at, message, hint }),
        None => Problem::of_file(code, file, &message, hint),
    }
}

/// What is wrong, and the remedy.
fn told(cause: &Yaml, written: &Written) -> (String, Option<String>) {
    let message = match cause {
        Yaml::SerdeUnknownField { field, expected, .. } => {
            return (format!("unknown field {field:?}"), Some(unknown_field(field, expected)));
        }
        Yaml::SerdeUnknownVariant { variant, expected, .. } => {
            return (format!("unknown value {variant:?}"), Some(meant(variant, expected)));
        }
        Yaml::SerdeMissingField { field, .. } => {
            return (format!("missing field {field:?}"), Some(format!("add `{field}:`")));
        }
        Yaml::DuplicateMappingKey { key, .. } => {
            let name = key.as_deref().map_or("a name".to_owned(), |key| format!("{key:?}"));
            return (format!("{name} is there twice"), Some("keep one of them".to_owned()));
        }
        Yaml::MultipleDocuments { .. } | Yaml::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            let hint = "put each saga into a file of its own";
            return ("a file holds one definition".to_owned(), Some(hint.to_owned()));
        }
        Yaml::UnsupportedTag { tag, .. } => {
            let hint = "remove it, or quote the value where it is a text";
            return (format!("the tag `{tag}` means nothing here"), Some(hint.to_owned()));
        }
        Yaml::ExternalMessage { msg, .. } if !too_deep(msg) => {
            return (plain(cause), written.is_in_expression.then(|| QUOTE.to_owned()));
        }
        Yaml::ExternalMessage { .. } => format!("the definition nests deeper than {MAX_DEPTH} levels"),
        Yaml::Budget { breach, .. } => {
            let (message, hint) = exceeded(breach);
            return (message, hint.map(str::to_owned));
        }
        Yaml::AliasReplayCounterOverflow { .. }
        | Yaml::AliasReplayLimitExceeded { .. }
        | Yaml::AliasExpansionLimitExceeded { .. }
        | Yaml::AliasReplayStackDepthExceeded { .. } => {
            return ("the aliases stand for too much".to_owned(), Some(WITHOUT_ALIASES.to_owned()));
        }
        Yaml::RecursiveReferencesRequireWeakTypes { .. } => {
            "an alias stands within what it stands for".to_owned()
        }
        Yaml::MergeValueNotMapOrSeqOfMaps { .. } => written.must_be("a mapping, or a list of mappings"),
        Yaml::Eof { .. } => "the definition ends too early".to_owned(),
        Yaml::NullIntoString { .. } => written.must_be_and_is("a text", "nothing"),
        Yaml::InvalidScalar { ty: "floating point", .. } => written.must_be("a number"),
        Yaml::InvalidScalar { ty: "u8", .. } => written.must_be("a whole number from 0 to 255"),
        Yaml::InvalidScalar { ty, .. } if ty.starts_with(['u', 'i']) => {
            let too_large = written.value.trim_matches('`').parse::<u128>().is_ok();
            let most = if too_large { format!(" to {}", u32::MAX) } else { String::new() };
            written.must_be(&format!("a whole number from 1{most}"))
        }
        Yaml::NonFiniteFloat { .. } => written.must_be("a finite number"),
        Yaml::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => written.must_be("a single word"),
        Yaml::UnexpectedValueForUnitEnumVariant { .. } => {
            "expected a single word, found a mapping".to_owned()
        }
        Yaml::Unexpected { expected, .. } => written.must_be(match *expected {
            "mapping start" => "a mapping",
            "sequence start" => "a list",
            "string scalar" => "a single value",
            other => other,
        }),
        Yaml::SerdeInvalidType { unexpected, expected, .. }
        | Yaml::SerdeInvalidValue { unexpected, expected, .. } => {
            written.must_be_and_is(expected, &of_type(unexpected))
        }
        other => plain(other),
    };
    (message, None)
}

/// What to do about what other languages have, or editors write.
fn of_other_languages(cause: &Yaml, written: &Written) -> Option<&'static str> {
    match cause {
        Yaml::ExternalMessage { msg, .. } if msg.contains("tabs disallowed") => {
            Some("indent by blanks: YAML takes no tabs there")
        }
        Yaml::Eof { .. } => {
            Some("a definition begins with `saga:`, `version:` and `start:`; `sagamq schema` has all")
        }
        _ if written.is_in_braces => {
            Some("an expression is a value that begins with `=`, without braces: `=event.data.order_id`")
        }
        _ => None,
    }
}

/// How to write an expression of which YAML takes a part for something else.
pub(in crate::saga) const QUOTE: &str = "put the expression into quotes that it has none of, such as \
    '=event.data[\"x\"]': YAML reads `: `, ` #` and quotes for itself, and within brackets `,`, `[` and `{` too";

/// The first field of the block of the field at a place, as the reader has the place of the last one; the place
/// itself where the field does not begin its line.
fn first_of_block(source: &str, at: Place) -> Place {
    let text = source.replace("\r\n", "\n");
    let lines: Vec<_> = text.split(['\n', '\r']).take(at.line).collect();
    let indent = at.column.saturating_sub(1);
    let mut first = at;
    for (index, line) in lines.into_iter().enumerate().rev() {
        let number = index + 1;
        let before: String = line.chars().take(indent).collect();
        let field: String = line.chars().skip(indent).collect();
        let width = field.find(':').map(|end| field[..end].chars().count());
        let begins = before.chars().all(|c| c == ' ' || c == '-') && !field.starts_with([' ', '#', '-']);
        match (begins, width) {
            (true, Some(width)) => first = Place { line: number, column: at.column, width },
            _ if number == at.line => return at,
            // What is further in belongs to a field above, and comments and empty lines to none.
            _ if before.trim().is_empty() || line.trim_start().starts_with('#') => continue,
            _ => return first,
        }
        if before.contains('-') {
            return first;
        }
    }
    first
}

/// What to do about an example that was copied as it is printed.
const LEFT_OUT: &str = "`...` stands for what was left out: write it there, or remove the line";

/// What to do about too many aliases.
const WITHOUT_ALIASES: &str = "write out what the aliases stand for";

/// Which bound is exceeded, and the remedy.
fn exceeded(breach: &BudgetBreach) -> (String, Option<&'static str>) {
    let hint = match breach {
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } | BudgetBreach::ScalarBytes { .. } => {
            "move steps into sagas of their own, and call them"
        }
        BudgetBreach::Depth { .. } => {
            return (format!("the definition nests deeper than {MAX_DEPTH} levels"), None);
        }
        _ => WITHOUT_ALIASES,
    };
    let message = match breach {
        BudgetBreach::Nodes { .. } | BudgetBreach::Events { .. } => {
            format!("the definition has more than {MAX_NODES} nodes")
        }
        BudgetBreach::Aliases { .. } => format!("the definition has more than {MAX_ALIASES} aliases"),
        BudgetBreach::Anchors { .. } => format!("the definition has more than {MAX_ANCHORS} anchors"),
        BudgetBreach::MergeKeys { .. } => format!("the definition has more than {MAX_MERGES} merges (`<<`)"),
        BudgetBreach::RecordedAnchorEvents { .. } | BudgetBreach::RecordedAnchorBytes { .. } => {
            "the aliases stand for too much".to_owned()
        }
        BudgetBreach::ScalarBytes { .. } => format!("the texts have more than {MAX_SOURCE} bytes in all"),
        _ => "the definition is too large or nests too deep".to_owned(),
    };
    (message, Some(hint))
}

/// What the reader itself says, without the place.
fn plain(error: &Yaml) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.as_str(), |end| &text[..end]).to_owned()
}

fn code(error: &Yaml) -> Code {
    match error {
        Yaml::SerdeUnknownField { .. } => Code::UnknownField,
        Yaml::SerdeUnknownVariant { .. } => Code::UnknownValue,
        Yaml::SerdeMissingField { .. } => Code::MissingField,
        Yaml::DuplicateMappingKey { .. } => Code::RepeatedField,
        Yaml::MultipleDocuments { .. } | Yaml::Budget { breach: BudgetBreach::Documents { .. }, .. } => {
            Code::SeveralDocuments
        }
        Yaml::Budget { .. }
        | Yaml::AliasReplayCounterOverflow { .. }
        | Yaml::AliasReplayLimitExceeded { .. }
        | Yaml::AliasExpansionLimitExceeded { .. }
        | Yaml::AliasReplayStackDepthExceeded { .. } => Code::TooLarge,
        Yaml::ExternalMessage { msg, .. } if too_deep(msg) => Code::TooLarge,
        // What the scanner says, rather than what is read from what it scanned.
        Yaml::ExternalMessage { .. }
        | Yaml::Eof { .. }
        | Yaml::UnknownAnchor { .. }
        | Yaml::FoldedBlockScalarMustIndentContent { .. }
        | Yaml::IndentationError { .. } => Code::NotYaml,
        _ => Code::WrongForm,
    }
}

/// Whether the scanner speaks of its bound on brackets.
fn too_deep(message: &str) -> bool {
    message.contains("recursion limit")
}

fn unknown_field(field: &str, expected: &[&str]) -> String {
    if !expected.contains(&"step") {
        return meant(field, expected);
    }
    if TOLD_BY_FIRST.contains(&field) {
        return format!("`{field}` is the first field of its entry");
    }
    if OF_BLOCKS.contains(&field) {
        return "an entry is either a step or a block of steps".to_owned();
    }
    match closest(field, ["parallel", "sequence", "wait", "delay", "emit", "call", "foreach"]) {
        Some(form) => format!("did you mean `{form}`?"),
        None => meant(field, expected),
    }
}

/// Which of the expected words was meant.
fn meant(word: &str, expected: &[&str]) -> String {
    match closest(word, expected.iter().copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None if expected.len() == 1 => format!("there is only `{}`", expected[0]),
        None => format!("one of {}", expected.join(", ")),
    }
}

/// What stands at the place of a problem, as far as its line shows it: errors do not tell.
#[derive(Default)]
struct Written {
    /// The field.
    field: Option<String>,
    /// Its value.
    value: String,
    /// Whether it is in an expression, or just behind one, that YAML did not take as a whole.
    is_in_expression: bool,
    /// Whether `...` stands in its place.
    is_left_out: bool,
    /// Whether `{{` stands there, or just before.
    is_in_braces: bool,
}

impl Written {
    fn at(source: &str, at: Place) -> Self {
        let line = line_of(source, at.line);
        let byte_of = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
        let (start, end) =
            (byte_of(at.column.saturating_sub(1)), byte_of(at.column.saturating_sub(1) + at.width));
        let (before, value) = line.split_at(start);
        let above = line_of(source, at.line.saturating_sub(1));
        let before = match () {
            // Of nothing, the place is that of the colon.
            () if value.starts_with(':') => &line[..=start],
            // Some problems have the place of the field.
            () if at.width > 1 && line[end..].starts_with(':') => &line[..=end],
            () if before.trim().is_empty() && at.line > 1 => &above,
            () => before,
        };
        let through = line.get(..byte_of(at.column)).unwrap_or_default();
        Self {
            field: field_of(before),
            value: found(value, at.width),
            is_in_expression: is_cut(through),
            is_left_out: value.starts_with("..."),
            is_in_braces: value.starts_with("{{") || value.starts_with('{') && line[..start].ends_with('{'),
        }
    }

    fn must_be(&self, what: &str) -> String {
        self.must_be_and_is(what, &self.value)
    }

    fn must_be_and_is(&self, what: &str, found: &str) -> String {
        match &self.field {
            Some(field) => format!("`{field}` must be {what}, found {found}"),
            None => format!("expected {what}, found {found}"),
        }
    }
}

/// The field whose value comes next.
fn field_of(before: &str) -> Option<String> {
    let before = before.trim_end().strip_suffix(':')?;
    let is_of_name = |c: char| c.is_alphanumeric() || "_-".contains(c);
    let name = before.rsplit(|c| !is_of_name(c)).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// What a value is.
fn found(value: &str, width: usize) -> String {
    let in_flow = value.split([',', ']', '}']).next().unwrap_or_default().trim_end();
    match value.chars().next() {
        None | Some('#' | ':' | ',' | '}' | ']') => "nothing".to_owned(),
        Some('[') => "a list".to_owned(),
        Some('{') => "a mapping".to_owned(),
        Some('-') if value[1..].is_empty() || value[1..].starts_with(' ') => "a list".to_owned(),
        Some('"' | '\'') => text(value, width),
        _ if in_flow.contains(": ") || in_flow.ends_with(':') => "a mapping".to_owned(),
        _ => text(value, width),
    }
}

fn text(value: &str, width: usize) -> String {
    format!("`{}`", value.chars().take(width.clamp(1, MAX_FOUND)).collect::<String>().trim_end())
}

/// What serde calls a type, as people do.
fn of_type(unexpected: &str) -> String {
    match (unexpected, unexpected.split('`').nth(1)) {
        ("sequence", _) => "a list".to_owned(),
        ("map", _) => "a mapping".to_owned(),
        (_, Some(value)) => format!("`{}`", value.chars().take(MAX_FOUND).collect::<String>()),
        ("unit value" | "Option value", _) => "nothing".to_owned(),
        (other, _) => other.to_owned(),
    }
}

/// Whether a line breaks off in an expression: one without quotes, or with such quotes within as it has around it.
fn is_cut(line: &str) -> bool {
    let begins_value = |before: &str| before.trim_end().ends_with([':', '[', '{', ',', '-']);
    for (start, _) in line.match_indices('=').rev() {
        let (before, expression) = line.split_at(start);
        if expression.contains(": ") {
            return false;
        }
        if begins_value(before) {
            return true;
        }
        for quote in ['"', '\''] {
            if before.strip_suffix(quote).is_some_and(begins_value) {
                let behind = expression.split_once(quote).map_or("", |(_, behind)| behind);
                return behind.starts_with(|c: char| !" ,]}".contains(c));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    const TINY: &str = "\
saga: tiny
version: 1
start: {on: {exchange: a, key: b}, business_key: =event.id}
steps:
  - step: s
    command: {exchange: c, key: d}
    FIELD
";

    fn refused(field: &str) -> Problem {
        *parse("f", &TINY.replace("FIELD", field)).expect_err(field)
    }

    #[test]
    fn a_missing_field_is_told_at_the_beginning_of_its_block() {
        let block = "  - wait: nod # for a person\n    # Where.\n    on:\n      exchange: a\n      key: k\n";
        for (from, to, place, message) in [
            ("saga: tiny\n", "# A comment.\n", (2, 1), "missing field \"saga\""),
            ("  - step: s\n", &format!("{block}  - step: s\n"), (5, 5), "missing field \"timeout\""),
            (
                "  - step: s\n",
                "  - wait: w\n    timeout: 1m\n    on:\n      key: k\n\n  - step: s\n",
                (8, 7),
                "missing field \"exchange\"",
            ),
            ("    command: {exchange: c, key: d}\n", "", (5, 5), "missing field \"command\""),
            ("on: {exchange: a, key: b}, ", "", (3, 9), "missing field \"on\""),
        ] {
            let source = TINY.replacen(from, to, 1).replace("FIELD", "timeout: 1s");
            let problem = *parse("f", &source).expect_err(to);
            assert_eq!((problem.line, problem.column), place, "{problem}");
            assert_eq!(problem.message, message, "{problem}");
        }
    }

    #[test]
    fn what_other_languages_have_and_editors_write_is_told_how_it_is_written_here() {
        let told = |source: &str| parse("f", source).expect_err(source).hint.unwrap_or_default();
        let tab = TINY.replace("FIELD", "").replace("  - step", "\t- step");
        assert!(told(&tab).starts_with("indent by blanks"), "{}", told(&tab));
        for field in ["output: {{ reply.data }}", "output: {a: {{reply.data.a}}}", "when: {{ input.a }}"] {
            let hint = told(&TINY.replace("FIELD", field));
            assert!(hint.contains("begins with `=`, without braces"), "{field}: {hint}");
        }
        for empty in ["", "\n", "# Nothing yet.\n"] {
            assert!(told(empty).starts_with("a definition begins with `saga:`"), "{}", told(empty));
        }
    }

    #[test]
    fn a_value_of_the_wrong_form_is_told_with_its_field_what_it_is_and_what_it_may_be() {
        for (field, message) in [
            ("limit: {in_flight: many}", "`in_flight` must be a whole number from 1, found `many`"),
            ("limit: {in_flight: -5}", "`in_flight` must be a whole number from 1, found `-5`"),
            ("limit: {in_flight: \"a, b\"}", "`in_flight` must be a whole number from 1, found `\"a, b\"`"),
            (
                "limit: {in_flight: 4294967296, per_second: 1}",
                "`in_flight` must be a whole number from 1 to 4294967295, found `4294967296`",
            ),
            ("limit: {per_second: often}", "`per_second` must be a number, found `often`"),
            ("limit: {per_second: [1]}", "`per_second` must be a single value, found a list"),
            ("limit: 3", "`limit` must be a mapping, found `3`"),
            ("replies: {outcome: success}", "`replies` must be a list, found a mapping"),
            ("replies:\n      outcome: success", "`replies` must be a list, found a mapping"),
            ("timeout:\n      - 5s", "`timeout` must be a single value, found a list"),
            ("retry: [some]", "`retry` must be the name of a retry policy, or a policy, found a list"),
            ("retry: 5", "`retry` must be the name of a retry policy, or a policy, found `5`"),
            (
                "compensate: [none]",
                "`compensate` must be `none`, or a mapping with a `command`, found a list",
            ),
            ("kind: [pivot]", "`kind` must be a single word, found a list"),
            ("kind: {pivot: 1}", "expected a single word, found a mapping"),
            ("output: {x: .inf}", "`x` must be a finite number, found `.inf`"),
            ("output: 1e999", "`output` must be a finite number, found `1e999`"),
        ] {
            let problem = refused(field);
            assert_eq!((problem.message.as_str(), problem.code), (message, Code::WrongForm));
        }
    }

    #[test]
    fn an_expression_that_needs_quotes_is_told_to_have_some() {
        for field in [
            "output: {a: =event.data[\"x\"]}",
            "output: {a: =reply.data.items[0].a, b: 1}",
            "output: [=reply.data.items[0]]",
            "output: {a: =reply.data.a ? {\"a\": 1} : 2}",
            "when: =input.a > 3 ? \"a\" : \"b\"",
            "when: ='a: b' == input.a",
            "when: \"=input[\"a\"]\"",
            "when: '=input.a == 'x''",
        ] {
            let problem = refused(field);
            assert_eq!((problem.code, problem.hint.as_deref()), (Code::NotYaml, Some(QUOTE)), "{field}");
        }
        // The expression is not what is wrong there.
        for field in
            ["output: {a: =input.a, b: ]", "output: {a: '=input.a', b ]", "output: {a: ]", "when: 'x' y"]
        {
            let problem = refused(field);
            assert_eq!((problem.code, problem.hint), (Code::NotYaml, None), "{field}");
        }
    }

    #[test]
    fn three_dots_are_told_to_stand_for_what_was_left_out() {
        for (field, code) in [
            ("...", Code::NotYaml),
            ("timeout: 5s\n    ...", Code::NotYaml),
            ("replies: [...]", Code::WrongForm),
            ("compensate:\n      ...", Code::WrongForm),
        ] {
            let problem = refused(field);
            assert_eq!((problem.code, problem.hint.as_deref()), (code, Some(LEFT_OUT)), "{field}");
        }
    }
}
