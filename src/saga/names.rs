//! Which names mean something at which place of a definition.

use std::ops::Range;

use super::code::Code;
use super::expression::path_text;
use super::instance::{Status, StepStatus};
use super::problem::closest;
use super::scope::{FAILURE_FIELDS, MESSAGE_FIELDS, SAGA_FIELDS, STEP_FIELDS};

/// What is wrong with a path, and the remedy.
type Wrong = (Code, String, Option<String>);

/// The names that are in scope at a place.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Names<'a> {
    /// What the place is called in messages.
    pub(super) place: &'static str,
    /// Whether there is an event.
    pub(super) event: bool,
    /// Whether there is an input.
    pub(super) input: bool,
    /// Whether there is a reply.
    pub(super) reply: bool,
    /// The steps that are in scope, as indices of `all_steps`; `None` where there is no instance yet.
    pub(super) steps: Option<&'a [Range<usize>]>,
    /// The fields of `saga` that are in scope. A command is rendered again after a crash, so it sees
    /// only what stands still while it is out.
    pub(super) saga: &'static [&'static str],
    /// All steps, to tell a later step from an unknown one.
    pub(super) all_steps: &'a [KnownStep<'a>],
    /// What is known of the item, in what is done for each item of a list.
    pub(super) item: Option<&'a Item<'a>>,
    /// The fields of the input, where the start lists them.
    pub(super) start_input: Option<&'a [&'a str]>,
}

/// What a definition says of an item of a list, for the steps that are done for it.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// The fields of its `input`.
    pub(super) input: Vec<&'a str>,
    /// The steps outside that can be handed in.
    pub(super) outside: Vec<&'a str>,
}

/// What a definition says of a step.
#[derive(Debug)]
pub(super) struct KnownStep<'a> {
    pub(super) name: &'a str,
    pub(super) output: KnownOutput<'a>,
}

/// What a definition says of a step's output.
#[derive(Debug)]
pub(super) enum KnownOutput<'a> {
    /// Nothing: it comes with a message.
    Any,
    /// The step keeps none.
    Nothing,
    /// A list of what is kept of each item.
    List,
    /// It has these fields.
    Fields(Vec<&'a str>),
}

impl<'a> Names<'a> {
    /// The same names with another title for the place.
    pub(super) fn at(self, place: &'static str) -> Self {
        Self { place, ..self }
    }

    /// The same names and the reply.
    pub(super) fn and_reply(self, place: &'static str) -> Self {
        Self { place, reply: true, ..self }
    }

    /// What is wrong with a path at this place, and the remedy.
    pub(super) fn check(&self, path: &[String]) -> Result<(), Wrong> {
        let root = path.first().map_or("", String::as_str);
        let available = match root {
            "event" => self.event,
            "input" => self.input,
            "reply" => self.reply,
            _ => self.steps.is_some(),
        };
        if !available {
            let message = format!("`{root}` is not available in {}", self.place);
            return Err((
                Code::NotInScope,
                message,
                Some(format!("available here: {}", self.available().join(", "))),
            ));
        }
        match (root, path.get(1)) {
            ("input", Some(field)) => {
                let fields = self.item.map(|item| item.input.as_slice()).or(self.start_input);
                fields.map_or(Ok(()), |fields| known(path, field, fields))
            }
            ("event" | "reply", Some(field)) => known(path, field, &MESSAGE_FIELDS),
            ("saga", Some(field))
                if SAGA_FIELDS.contains(&field.as_str()) && !self.saga.contains(&field.as_str()) =>
            {
                let message = format!("`saga.{field}` is not available in {}", self.place);
                Err((
                    Code::NotInScope,
                    message,
                    Some(format!("available here: saga.{{{}}}", self.saga.join(", "))),
                ))
            }
            ("saga", Some(field)) => {
                known(path, field, self.saga)?;
                of_error(path, field, path.get(2))
            }
            ("saga", None) if self.saga.len() < SAGA_FIELDS.len() => Err((
                Code::NotInScope,
                format!("`saga` as a whole is not available in {}", self.place),
                Some(format!("name a field: saga.{{{}}}", self.saga.join(", "))),
            )),
            ("steps", Some(step)) => {
                let step = self.step(step)?;
                match (path.get(2).map(String::as_str), path.get(3)) {
                    (Some("output"), Some(field)) => step.keeps(path, field),
                    (Some(field), below) => {
                        known(path, field, &STEP_FIELDS)?;
                        of_error(path, field, below)
                    }
                    (None, _) => Ok(()),
                }
            }
            ("steps", None) => Err((
                Code::NotInScope,
                "`steps` needs the name of a step".to_owned(),
                Some("write `steps.<name>.output`".to_owned()),
            )),
            _ => Ok(()),
        }
    }

    fn step(&self, name: &str) -> Result<&'a KnownStep<'a>, Wrong> {
        let before = self.steps.unwrap_or_default();
        if let Some((index, step)) = self.all_steps.iter().enumerate().find(|(_, known)| known.name == name) {
            if before.iter().any(|steps| steps.contains(&index)) {
                return Ok(step);
            }
            let message = format!("step {name:?} is not before this one");
            let hint = match before.len() {
                0 => "an event may come before its turn: refer to steps in one that comes later",
                1 => "an expression sees the steps that are done before it",
                _ => "an expression sees the steps that are done before it, and none of another branch",
            };
            return Err((Code::StepNotBefore, message, Some(hint.to_owned())));
        }
        let is_outside = self.item.is_some_and(|item| item.outside.contains(&name));
        let hint = match closest(name, self.all_steps.iter().map(|step| step.name)) {
            _ if is_outside => Some(format!(
                "it is outside of the body: hand it in by `with: {{{name}: =steps.{name}.output}}`, and write \
                 `input.{name}`"
            )),
            known => known.map(|known| format!("did you mean `{known}`?")),
        };
        Err((Code::UnknownStep, format!("unknown step {name:?}"), hint))
    }

    fn available(&self) -> Vec<&'static str> {
        let names = [
            ("event", self.event),
            ("input", self.input),
            ("reply", self.reply),
            ("saga", self.steps.is_some()),
            ("steps", self.steps.is_some_and(|steps| steps.iter().any(|range| !range.is_empty()))),
        ];
        names.into_iter().filter(|(_, available)| *available).map(|(name, _)| name).collect()
    }
}

impl KnownStep<'_> {
    /// Whether its output may have a field.
    fn keeps(&self, path: &[String], field: &str) -> Result<(), Wrong> {
        match &self.output {
            KnownOutput::Any => Ok(()),
            KnownOutput::Nothing => Err((
                Code::UnknownPathField,
                format!("`{}`: step {:?} keeps no output", path_text(path), self.name),
                Some("say in its `output` what it keeps, such as `output: =reply.data`".to_owned()),
            )),
            KnownOutput::List => Err((
                Code::UnknownPathField,
                format!("`{}`: the output is a list, and has no field {field:?}", path_text(path)),
                Some(format!(
                    "name an item, such as `steps.{0}.output[0]`, or go over all: `steps.{0}.output.map(x, x.{field})`",
                    self.name
                )),
            )),
            KnownOutput::Fields(fields) => known(path, field, fields),
        }
    }
}

/// What is below `error`, which has fixed fields too.
fn of_error(path: &[String], of: &str, field: Option<&String>) -> Result<(), Wrong> {
    field.filter(|_| of == "error").map_or(Ok(()), |field| known(path, field, &FAILURE_FIELDS))
}

/// What is wrong with a text that a path is compared with, and the remedy.
pub(super) fn check_word(path: &[String], word: &str) -> Result<(), Wrong> {
    let words: Vec<_> = match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["steps", _, "status"] => StepStatus::ALL.map(StepStatus::as_str).to_vec(),
        ["saga", "status"] => Status::ALL.map(Status::as_str).to_vec(),
        _ => return Ok(()),
    };
    if words.contains(&word) {
        return Ok(());
    }
    let hint = match closest(word, words.iter().copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None => format!("one of {}", words.join(", ")),
    };
    Err((Code::UnknownValue, format!("`{}` is never {word:?}", path_text(path)), Some(hint)))
}

fn known(path: &[String], field: &str, fields: &[&str]) -> Result<(), Wrong> {
    if fields.contains(&field) {
        return Ok(());
    }
    let hint = match closest(field, fields.iter().copied()) {
        Some(known) => format!("did you mean `{known}`?"),
        None if fields.is_empty() => "there are none".to_owned(),
        None => format!("there are {}", fields.join(", ")),
    };
    Err((Code::UnknownPathField, format!("`{}`: there is no field {field:?}", path_text(path)), Some(hint)))
}
