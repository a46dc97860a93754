//! Steps that send no command: waits, delays, calls and lists of items.

use serde_json::Value;

use super::*;
use crate::saga::definition::{AtTimeout, Call, Delay, Foreach, Node as Written, Verdict, Wait};
use crate::saga::each::INDEX;
use crate::saga::graph::graph;
use crate::saga::time::Timestamp;

/// Most items of a list, and most of them under way at a time.
const MOST_ITEMS: u32 = 1000;
const MOST_IN_FLIGHT: u32 = 100;

impl Lint<'_> {
    pub(super) fn wait(&mut self, wait: &Wait, after_pivot: bool) {
        let name = &wait.wait;
        match (&wait.on, wait.events.first()) {
            (Some(on), None) => {
                self.subscription(on);
                self.finds_instance(on, wait.business_key.is_some());
            }
            (None, Some(_)) => {}
            (on, _) => {
                let at = on.as_ref().map_or(name.at, |on| on.at);
                let hint = "say `on` for one event, or `events` where several mean different things";
                let message = format!("wait {:?} needs one of `on` and `events`", name.value);
                self.refuse(Code::OneOfTwo, at, message, Some(hint));
            }
        }
        if let (None, Some(key)) = (&wait.on, &wait.business_key) {
            let message = "`business_key` belongs to `on`";
            self.refuse(Code::OneOfTwo, key.at, message, Some("give it to each entry of `events`"));
        }
        for event in &wait.events {
            self.subscription(&event.on);
            self.finds_instance(&event.on, event.business_key.is_some());
            if let (Verdict::Success, Some(error)) = (event.outcome.unwrap_or(Verdict::Success), &event.error)
            {
                self.refuse(Code::ErrorOfSuccess, error.at, "a success has no error code", None);
            }
        }
        self.each_event_can_match(&wait.events);
        self.users(wait.from_user.as_ref());
        self.not_zero(&wait.timeout);
        if !after_pivot {
            self.within_deadline("wait", name, &wait.timeout);
        }
        if let Some(on_timeout) = &wait.on_timeout
            && after_pivot
            && on_timeout.value == AtTimeout::Compensate
        {
            let message =
                format!("wait {:?} comes after the pivot, from where there is no way back", name.value);
            let hint = "say `on_timeout: continue` or `on_timeout: park`";
            self.refuse(Code::NoWayBackFromTimeout, on_timeout.at, message, Some(hint));
        }
    }

    /// Whether the called saga is there is looked at where all definitions are known.
    pub(super) fn called(&mut self, call: &Call) {
        self.name("saga", &call.saga);
        if call.saga.value == self.definition.saga.value {
            let hint = "have it do without, or call another saga";
            let message = format!("saga {:?} calls itself", call.saga.value);
            self.refuse(Code::EndlessCalls, call.saga.at, message, Some(hint));
        }
    }

    /// A list of items, and what is done for each.
    pub(super) fn each(&mut self, each: &Foreach) {
        let bounds = [
            ("max_items", &each.max_items, MOST_ITEMS),
            ("max_in_flight", &each.max_in_flight, MOST_IN_FLIGHT),
        ];
        for (name, bound, most) in bounds {
            if let Some(bound) = bound
                && !(1..=most).contains(&bound.value)
            {
                let message = format!("`{name}` must be 1 to {most}");
                self.refuse(Code::ItemsOutOfRange, bound.at, message, None);
            }
        }
        if let Some(name) = &each.name {
            self.name_in_body(name, &[INDEX]);
        }
        for (name, _) in &each.with.0 {
            self.name_in_body(name, &[INDEX, each.item_name()]);
        }
        if let Some(kind) = each.kind.as_ref().filter(|kind| kind.value == Kind::Pivot) {
            let message = "what is done for each item cannot be the pivot";
            let hint = "one item could be done, and the next one fail: make the pivot a step of its own";
            self.refuse(Code::PivotOfItems, kind.at, message, Some(hint));
        }
        let body = self.definition.body(each);
        let nodes = graph(&body.steps);
        let undoable = each.kind.as_ref().is_none_or(|kind| kind.value == Kind::Compensatable);
        let pivot = nodes.iter().filter_map(|node| node.form.kind()).find(|(kind, _)| *kind == Kind::Pivot);
        if let (true, Some((_, Some(at)))) = (undoable, pivot) {
            let message = "an item with a pivot could not be undone";
            let hint =
                "leave `kind: pivot` out, or do this after the pivot of the saga, with `kind: retriable`";
            self.refuse(Code::CalledPivot, at.at, message, Some(hint));
        }
        if body.steps.is_empty() {
            let message = format!("foreach {:?} has no steps", each.foreach.value);
            let hint = "say what is done for each item, or leave it out";
            self.refuse(Code::EmptyBlock, body.steps.at, message, Some(hint));
        }
        for finding in lint_body(&body, &nodes).0 {
            self.findings.push(finding);
        }
    }

    /// A name of what the body has as its input, beside those that are taken.
    fn name_in_body(&mut self, name: &Located<String>, taken: &[&str]) {
        self.name("item", name);
        if taken.contains(&name.value.as_str()) {
            let message = format!("the input of the body has {:?} already", name.value);
            let hint = "it holds the item, its place in the list as `index`, and what stands in `with`";
            self.refuse(Code::InvalidName, name.at, message, Some(hint));
        }
    }

    pub(super) fn delay(&mut self, delay: &Delay, after_pivot: bool) {
        let name = &delay.delay;
        match (&delay.time, &delay.until) {
            (Some(time), None) => {
                self.not_zero(time);
                if !after_pivot {
                    self.within_deadline("delay", name, time);
                }
            }
            (None, Some(until)) => {
                if !may_be_time(&until.value) {
                    let message = format!("the `until` of delay {:?} is no time", name.value);
                    let hint = "write a time such as 2027-01-02T03:04:05Z, or an expression that gives one";
                    self.refuse(Code::NotATime, until.at, message, Some(hint));
                }
            }
            (time, _) => {
                let at = time.as_ref().map_or(name.at, |time| time.at);
                let message = format!("delay {:?} needs one of `for` and `until`", name.value);
                let hint = "say `for` and a duration, or `until` and an expression";
                self.refuse(Code::OneOfTwo, at, message, Some(hint));
            }
        }
    }
}

/// Whether a value is a time, or what will only be known later. Lists and mappings are refused elsewhere.
fn may_be_time(value: &Written) -> bool {
    match value {
        Written::Scalar(Value::String(text)) => text.starts_with('=') || Timestamp::parse(text).is_some(),
        Written::Scalar(_) => false,
        Written::List(_) | Written::Map(_) => true,
    }
}
