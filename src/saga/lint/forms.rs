//! Steps that send no command: waits, delays and calls.

use super::*;
use crate::saga::definition::{AtTimeout, Call, Delay, Verdict, Wait};

impl Lint<'_> {
    pub(super) fn wait(&mut self, wait: &Wait, after_pivot: bool) {
        let name = &wait.wait;
        match (&wait.on, wait.events.first()) {
            (Some(on), None) => self.subscription(on),
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
            if let (Verdict::Success, Some(error)) = (event.outcome.unwrap_or(Verdict::Success), &event.error)
            {
                self.refuse(Code::ErrorOfSuccess, error.at, "a success has no error code", None);
            }
        }
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

    pub(super) fn delay(&mut self, delay: &Delay, after_pivot: bool) {
        let name = &delay.delay;
        match (&delay.time, &delay.until) {
            (Some(time), None) => {
                self.not_zero(time);
                if !after_pivot {
                    self.within_deadline("delay", name, time);
                }
            }
            (None, Some(_)) => {}
            (time, _) => {
                let at = time.as_ref().map_or(name.at, |time| time.at);
                let message = format!("delay {:?} needs one of `for` and `until`", name.value);
                let hint = "say `for` and a duration, or `until` and an expression";
                self.refuse(Code::OneOfTwo, at, message, Some(hint));
            }
        }
    }
}
