//! Plans of any shape, for the tests of what is drawn of them.

use std::fmt::Write;

use proptest::prelude::*;

use crate::saga::compile;
use crate::saga::plan::Plan;

/// The order saga.
pub(super) fn order() -> Plan {
    compile::load("sagas/order.yaml", include_str!("../../sagas/order.yaml")).unwrap()
}

/// A chain with a step for each letter, of which `pivot` is the pivot. Those before it can be undone.
pub(super) fn plan(letters: &str, pivot: char) -> Plan {
    let mut source = "saga: letters\nversion: 2\n\
                      start: {on: {exchange: in, key: begin}, business_key: =event.id}\nsteps:\n"
        .to_owned();
    let mut passed = false;
    for letter in letters.chars() {
        let rest = match letter {
            _ if passed => "kind: retriable",
            _ if letter == pivot => "kind: pivot",
            _ => "compensate: {command: {exchange: out, key: undo}}",
        };
        passed |= letter == pivot;
        let _ = writeln!(source, "  - step: {letter}\n    command: {{exchange: out, key: do}}\n    {rest}");
    }
    compile::load("letters.yaml", &source).unwrap()
}

/// A fork of two branches that join again, one of them longer; a fork after the pivot. `b` has nothing to
/// undo, and `c` a condition that XML would trip over.
pub(super) fn parallel() -> Plan {
    let mut plan = plan("abcdefgh", 'f');
    let requires: [&[usize]; 8] = [&[], &[0], &[0], &[2], &[0, 1], &[1, 3, 4], &[5], &[5]];
    for (step, requires) in plan.steps.iter_mut().zip(requires) {
        step.requires = requires.to_vec();
    }
    plan.steps[1].compensation = None;
    let when = crate::saga::expression::Expression::compile(r#"input.a < 3 && input.b != "<x>""#);
    plan.steps[2].when = Some(when.unwrap());
    plan
}

/// Plans whose steps require any of those before them.
pub(super) fn any_plan() -> impl Strategy<Value = Plan> {
    let row = proptest::collection::vec(any::<bool>(), 9);
    (1usize..=9, proptest::collection::vec(row, 9), 0usize..12).prop_map(|(steps, required, pivot)| {
        let letters = &"abcdefghi"[..steps];
        let mut plan = plan(letters, "abcdefghi___".chars().nth(pivot).unwrap_or('_'));
        for (step, of_row) in plan.steps.iter_mut().zip(&required) {
            let earlier = step.requires.first().map_or(0, |last| last + 1);
            step.requires = (0..earlier).filter(|&index| of_row[index]).collect();
            if of_row[8] {
                step.compensation = None;
            }
        }
        plan
    })
}
