//! Steps that are done for each item of a list: every item is an instance of its own, called as other sagas are.
//!
//! ```text
//! listed --> items are called, so many at a time --> all done: the step succeeds
//!                  | one fails
//!                  v
//!            those under way are recalled --> nothing done: the step fails; else it is given up, and undone
//! ```

use serde_json::{Map, Value};

use super::called::{Caller, End, Start, Told};
use super::expression::{MAX_RESULT, Scope, take_room};
use super::fact::{Fact, Failure};
use super::id::{InstanceId, Phase};
use super::instance::{Instance, Item, ItemStatus, StepStatus};
use super::plan::{Each, Kind, Plan, Work};
use super::scope::type_name;
use super::template::Template;
use super::transition::Transition;

/// What the input of an item's instance calls its place in the list, from 0.
pub(super) const INDEX: &str = "index";

/// The instance of an item that was called last.
pub fn item_instance(each: &Each, instance: &Instance, step: usize, item: usize) -> Option<InstanceId> {
    let attempt = instance.steps.get(step)?.items.get(item)?.attempt;
    (attempt > 0).then(|| InstanceId::new(&each.body.saga, &key_of(instance, step, item, attempt)))
}

/// Every instance that the items of a step have, with where the item stands.
pub fn item_instances<'a>(
    plan: &'a Plan,
    instance: &'a Instance,
    step: usize,
) -> impl Iterator<Item = (InstanceId, ItemStatus)> + use<'a> {
    let each = match plan.steps.get(step).map(|step| &step.work) {
        Some(Work::Each(each)) => Some(each),
        _ => None,
    };
    let items = instance.steps.get(step).map_or(&[][..], |state| &state.items).iter().enumerate();
    items.filter_map(move |(index, item)| Some((item_instance(each?, instance, step, index)?, item.status)))
}

/// The business key of the instance that an attempt of an item has.
pub(crate) fn key_of(instance: &Instance, step: usize, item: usize, attempt: u32) -> String {
    super::called::key_of(instance, step, &format!("/{item}"), attempt)
}

/// The items of a step, or why there are none.
pub(crate) fn items_of(each: &Each, instance: &Instance) -> Result<Vec<Value>, String> {
    match each.items.evaluate(&Scope::of(instance)) {
        Ok(Value::Array(items)) => Ok(items),
        Ok(other) => Err(format!("the step's `items` is {}, and not a list", type_name(&other))),
        Err(error) => Err(format!("the step's `items` cannot be evaluated: {error}")),
    }
}

/// What the input of every item holds besides the item.
pub(crate) fn fields_of(each: &Each, instance: &Instance) -> Result<Map<String, Value>, String> {
    let scope = Scope::of(instance);
    let field = |(name, template): &(String, Template)| {
        let value = template.evaluate(&scope);
        value.map(|value| (name.clone(), value)).map_err(|error| format!("`with.{name}`: {error}"))
    };
    each.with.iter().map(field).collect()
}

/// The input of an item's instance.
pub(crate) fn input_of(each: &Each, mut fields: Map<String, Value>, item: usize, value: Value) -> Value {
    fields.insert(INDEX.to_owned(), Value::from(item));
    fields.insert(each.name.clone(), value);
    Value::Object(fields)
}

impl Transition<'_> {
    /// Begins a step for each item of its list, or once more for those that had failed.
    pub(super) fn list_items(&mut self, step: usize, each: &Each, attempt: u32) {
        let listed = self.instance.steps[step].items.len();
        if listed > 0 {
            return self.record(Fact::Listed { step, attempt, items: listed });
        }
        let items = match items_of(each, self.instance) {
            Ok(items) if items.len() > each.max_items => {
                let message =
                    format!("there are {} items, and at most {} are allowed", items.len(), each.max_items);
                let error = self.failure(step, "TOO_MANY_ITEMS", message);
                return self.refuse(step, error);
            }
            Ok(items) => items.len(),
            Err(message) => {
                let error = self.failure(step, "BAD_EXPRESSION", message);
                return self.refuse(step, error);
            }
        };
        self.record(Fact::Listed { step, attempt, items });
    }

    /// Does what is due for the items of every step that has some.
    pub(super) fn advance_items(&mut self) {
        let plan = self.plan;
        for (step, of) in plan.steps.iter().enumerate() {
            let Work::Each(each) = &of.work else { continue };
            match self.instance.steps[step].status {
                StepStatus::Dispatched => self.items_forward(step, each),
                StepStatus::Compensating => self.items_back(step, each),
                _ => {}
            }
        }
    }

    fn items_forward(&mut self, step: usize, each: &Each) {
        let is_undoable = self.plan.steps[step].kind == Kind::Compensatable;
        let is_stopping = self.instance.is_stopping();
        let error = self.instance.steps[step].error.clone();
        let Some(error) = error.or_else(|| is_stopping.then(|| self.stopped(step))) else {
            self.call_items(step, each);
            if self.count(step, |status| status != ItemStatus::Done) == 0 {
                self.all_done(step);
            }
            return;
        };
        if is_undoable {
            for item in 0..self.instance.steps[step].items.len() {
                if self.item(step, item).status == ItemStatus::Called {
                    self.recall_item(step, each, item);
                }
            }
        }
        if self.in_flight(step) > 0 {
            return;
        }
        if self.count(step, |status| matches!(status, ItemStatus::Done | ItemStatus::NotUndone)) == 0 {
            self.refuse(step, error);
        } else {
            self.record(Fact::GivenUp { step, error: error.clone() });
            self.stop_or_park(step, error);
        }
    }

    /// Every item is done. One without an output that can be kept stays so, however often the step is retried.
    fn all_done(&mut self, step: usize) {
        let items = &self.instance.steps[step].items;
        if let Some(error) = items.iter().find_map(|item| item.error.clone()) {
            self.record(Fact::GivenUp { step, error: error.clone() });
            return self.stop_or_park(step, error);
        }
        let output = Value::Array(items.iter().map(|item| item.output.clone()).collect());
        self.record(Fact::succeeded(step, output));
    }

    fn call_items(&mut self, step: usize, each: &Each) {
        let items = 0..self.instance.steps[step].items.len();
        let next = self.next_items(step, each, items, ItemStatus::Pending);
        if next.is_empty() {
            return;
        }
        let (list, with) = match (items_of(each, self.instance), fields_of(each, self.instance)) {
            (Ok(list), Ok(with)) => (list, with),
            (Err(message), _) | (_, Err(message)) => {
                let error = self.failure(step, "BAD_EXPRESSION", message);
                return self.fail_pending(step, &error);
            }
        };
        for item in next {
            let value = list.get(item).cloned().unwrap_or_default();
            let input = input_of(each, with.clone(), item, value);
            match self.fits(step, &input) {
                Ok(()) => self.call_item(step, each, item, input),
                Err(error) => return self.fail_pending(step, &error),
            }
        }
    }

    fn call_item(&mut self, step: usize, each: &Each, item: usize, input: Value) {
        let attempt = self.item(step, item).attempt.saturating_add(1);
        let business_key = key_of(self.instance, step, item, attempt);
        let saga = each.body.saga.clone();
        let instance = InstanceId::new(&saga, &business_key);
        let caller = Caller { item: Some(item), ..self.caller_of(step) };
        self.record(Fact::ItemCalled { step, item, instance });
        let start = Start { saga, business_key, input, caller, trace: self.instance.trace.clone() };
        self.decision.told.push(Told::Start(Box::new(start)));
    }

    fn recall_item(&mut self, step: usize, each: &Each, item: usize) {
        if let Some(instance) = item_instance(each, self.instance, step, item) {
            self.record(Fact::ItemRecalled { step, item });
            self.tell_to_turn_back(instance);
        }
    }

    /// Undoes what was done, the last item first, so many at a time. It is undone if no item was left as it was.
    fn items_back(&mut self, step: usize, each: &Each) {
        let items = (0..self.instance.steps[step].items.len()).rev();
        for item in self.next_items(step, each, items, ItemStatus::Done) {
            self.recall_item(step, each, item);
        }
        if self.in_flight(step) == 0 {
            let leaves = self.count(step, |status| status == ItemStatus::NotUndone) > 0;
            self.record(if leaves { Fact::LeftUndone { step } } else { Fact::Compensated { step } });
        }
    }

    /// Takes in what became of the instance of an item.
    pub(super) fn item_ended(&mut self, step: usize, item: usize, end: End) {
        let status = self.instance.steps[step].status;
        let Some(state) = self.instance.steps[step].items.get(item) else { return };
        let is_out = matches!(state.status, ItemStatus::Called | ItemStatus::Recalled);
        if !is_out || !matches!(status, StepStatus::Dispatched | StepStatus::Compensating) {
            return;
        }
        if status == StepStatus::Dispatched
            && state.status == ItemStatus::Recalled
            && matches!(end, End::Done(_))
        {
            // It was told to turn back when it had just been done: what is awaited is that it is undone.
            return;
        }
        let name = self.instance.steps[step].name.clone();
        let of_step = |failure: Failure| Failure { step: Some(name.clone()), ..failure };
        let phase = if status == StepStatus::Dispatched { Phase::Action } else { Phase::Compensation };
        if let End::Parked(_) = end {
            if !state.stalled {
                self.record(Fact::Stalled { step, item: Some(item) });
            }
            return;
        }
        let is_stalled = |(index, of): (usize, &Item)| index != item && of.stalled;
        if !self.instance.steps[step].items.iter().enumerate().any(is_stalled) {
            self.resume_from(step, phase);
        }
        match end {
            End::Done(Ok(output)) if !self.has_room_for(step, &output) => {
                let message = "the outputs of all items take too much room".to_owned();
                let error = Some(self.failure(step, "BAD_OUTPUT", message));
                self.record(Fact::ItemDone { step, item, output: Value::Null, error });
            }
            End::Done(Ok(output)) => self.record(Fact::ItemDone { step, item, output, error: None }),
            End::Done(Err(error)) => {
                let (output, error) = (Value::Null, Some(of_step(error)));
                self.record(Fact::ItemDone { step, item, output, error });
            }
            End::Failed(error) => self.record(Fact::ItemFailed { step, item, error: of_step(error) }),
            End::Undone { leaves: true } => self.record(Fact::ItemLeft { step, item }),
            End::Undone { .. } if phase == Phase::Action => {
                self.record(Fact::ItemFailed { step, item, error: self.turned_back(step, false) });
            }
            End::Undone { .. } => self.record(Fact::ItemUndone { step, item }),
            End::Parked(_) => {}
        }
    }

    fn fail_pending(&mut self, step: usize, error: &Failure) {
        for item in 0..self.instance.steps[step].items.len() {
            if self.item(step, item).status == ItemStatus::Pending {
                self.record(Fact::ItemFailed { step, item, error: error.clone() });
            }
        }
    }

    /// Whether the outputs of all items, with this one, can be kept.
    fn has_room_for(&self, step: usize, output: &Value) -> bool {
        let mut room = MAX_RESULT;
        let outputs = self.instance.steps[step].items.iter().map(|item| &item.output);
        outputs.chain([output]).all(|output| take_room(output, &mut room).is_ok())
    }

    fn stopped(&self, step: usize) -> Failure {
        let message = "no further item is begun because the instance stops".to_owned();
        self.failure(step, "STOPPED", message)
    }

    /// The first of these items that have a status, as many as may be under way beside those that are.
    fn next_items(
        &self,
        step: usize,
        each: &Each,
        items: impl Iterator<Item = usize>,
        status: ItemStatus,
    ) -> Vec<usize> {
        let room = each.max_in_flight.saturating_sub(self.in_flight(step));
        items.filter(|item| self.item(step, *item).status == status).take(room).collect()
    }

    fn item(&self, step: usize, item: usize) -> &Item {
        &self.instance.steps[step].items[item]
    }

    fn count(&self, step: usize, wanted: impl Fn(ItemStatus) -> bool) -> usize {
        self.instance.steps[step].items.iter().filter(|item| wanted(item.status)).count()
    }

    fn in_flight(&self, step: usize) -> usize {
        self.count(step, |status| matches!(status, ItemStatus::Called | ItemStatus::Recalled))
    }
}
