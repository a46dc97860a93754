//! Members: a saga, and what it does for each item of lists, however deep. Together they are one definition.

use std::sync::Arc;

use super::path::Target;
use crate::saga::id::Phase;
use crate::saga::plan::{Plan, Work};

/// A saga itself, or the steps that one of its steps does for each item.
pub(super) struct Member<'a> {
    pub(super) plan: &'a Plan,
    /// The step that it is done for: the index of its member, and its own.
    pub(super) parent: Option<(usize, usize)>,
    /// The names of the steps that lead to it.
    pub(super) path: Vec<&'a str>,
}

/// A step as scenarios name it, such as `parcels/pick` or, for one item, `parcels/1/pick`.
pub(super) struct Named {
    pub(super) target: Target,
    /// Which items, from 0; empty where none is told.
    pub(super) items: Vec<usize>,
}

/// The members of a definition; the first is the saga itself.
pub(super) fn members(plan: &Plan) -> Vec<Member<'_>> {
    fn collect<'a>(all: &mut Vec<Member<'a>>, of: Member<'a>) {
        let (index, plan, path) = (all.len(), of.plan, of.path.clone());
        all.push(of);
        for (step, of) in plan.steps.iter().enumerate() {
            if let Work::Each(each) = &of.work {
                let path = [&path[..], &[of.name.as_str()]].concat();
                collect(all, Member { plan: &each.body, parent: Some((index, step)), path });
            }
        }
    }
    let mut all = Vec::new();
    collect(&mut all, Member { plan, parent: None, path: Vec::new() });
    all
}

/// Changes every member of a definition that nobody shares yet.
pub(super) fn change(plan: &mut Plan, how: &mut impl FnMut(usize, &mut Plan)) {
    fn go(plan: &mut Plan, member: &mut usize, how: &mut impl FnMut(usize, &mut Plan)) {
        how(*member, plan);
        for step in &mut plan.steps {
            if let Work::Each(each) = &mut step.work
                && let Some(body) = Arc::get_mut(&mut each.body)
            {
                *member += 1;
                go(body, member, how);
            }
        }
    }
    go(plan, &mut 0, how);
}

/// The member that a step of another one does for each item.
pub(super) fn body_of(members: &[Member<'_>], member: usize, step: usize) -> Option<usize> {
    members.iter().position(|of| of.parent == Some((member, step)))
}

impl Named {
    /// The step of this name, as what is done.
    pub(super) fn find(plan: &Plan, name: &str) -> Option<Self> {
        let words: Vec<_> = name.split('/').collect();
        let is_item = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let items: Option<Vec<usize>> =
            words.iter().filter(|word| is_item(word)).map(|word| word.parse().ok()).collect();
        let items = items?;
        // Either each step on the way has its item, or none has.
        let in_place = words.iter().enumerate().all(|(at, word)| is_item(word) == (at % 2 == 1));
        if !items.is_empty() && !in_place {
            return None;
        }
        let names: Vec<_> = words.into_iter().filter(|word| !is_item(word)).collect();
        let (step, path) = names.split_last()?;
        let members = members(plan);
        let member = members.iter().position(|member| member.path == path)?;
        let step = members[member].plan.steps.iter().position(|of| of.name == *step)?;
        Some(Self { target: Target { member, step, phase: Phase::Action }, items })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saga::compile;

    #[test]
    fn a_step_for_each_item_is_named_with_the_step_that_it_is_done_for() {
        let plan = compile::load("bulk_order.yaml", include_str!("../../sagas/bulk_order.yaml")).unwrap();
        let find = |name| Named::find(&plan, name).map(|named| (named.target.name(&plan), named.items));
        assert_eq!(find("parcels/pick"), Some(("parcels/pick".to_owned(), vec![])));
        assert_eq!(find("hand_over/12/send"), Some(("hand_over/send".to_owned(), vec![12])));
        assert_eq!(find("charge"), Some(("charge".to_owned(), vec![])));
        for unknown in
            ["pick", "charge/pick", "parcels/send", "1/parcels/pick", "parcels/pick/1", "parcels/x1/pick", ""]
        {
            assert_eq!(find(unknown), None, "{unknown}");
        }
    }
}
