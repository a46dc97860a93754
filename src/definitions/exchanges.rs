//! Exchanges over all definitions of a folder: what is in force agrees on the type of each, and on how it is made.

use std::collections::BTreeMap;

use super::{Loaded, in_force};
use crate::saga::code::Code;
use crate::saga::exchange::{ExchangeKind, Make};
use crate::saga::problem::Problem;

/// Definitions that take an exchange for another type than one before them does. Who only publishes to it need not
/// say its type.
pub(super) fn problems(loaded: &[Loaded]) -> Vec<Problem> {
    let mut known: BTreeMap<String, (ExchangeKind, &str)> = BTreeMap::new();
    let mut problems = made(loaded);
    for Loaded { file, plan, .. } in in_force(loaded) {
        let described = plan.described.iter().map(|of| (of.name.clone(), of.kind));
        let heard = plan.subscriptions().into_iter().map(|on| (on.exchange, on.matching.kind()));
        let taken: BTreeMap<_, _> = described.chain(heard).collect();
        for (exchange, kind) in taken {
            let (of, other) = *known.entry(exchange.clone()).or_insert((kind, file));
            if of != kind {
                let (kind, of) = (kind.as_str(), of.as_str());
                let message =
                    format!("exchange {exchange:?} is of type {kind} here, and of type {of} in {other}");
                let hint = "say the type that it has under `exchanges`, in both; without a word, it is topic";
                problems.push(Problem::of_file(Code::NotOfItsType, file, &message, Some(hint.to_owned())));
            }
        }
    }
    problems
}

/// Definitions that would make an exchange in another way than one before them. Who says nothing of that leaves it to
/// the others.
fn made(loaded: &[Loaded]) -> Vec<Problem> {
    let mut known: BTreeMap<&str, (&Make, &str)> = BTreeMap::new();
    let mut problems = Vec::new();
    for Loaded { file, plan, .. } in in_force(loaded) {
        for (exchange, make) in plan.described.iter().filter_map(|of| Some((&of.name, of.make.as_ref()?))) {
            let (of, other) = *known.entry(exchange).or_insert((make, file));
            if of != make {
                let message = format!("exchange {exchange:?} is made in another way here than in {other}");
                let hint = "say the same `durable` and `arguments` in both, or leave them out in one";
                problems.push(Problem::of_file(Code::UnfitMake, file, &message, Some(hint.to_owned())));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::saga::compile;

    fn loaded(saga: &str, version: u32, exchanges: &str, on: &str) -> Loaded {
        let source = format!(
            "saga: {saga}\nversion: {version}\n{exchanges}\n\
             start: {{on: {{exchange: {on}, key: placed}}, business_key: =event.data.id}}\n\
             steps: [{{step: do, command: {{exchange: work, key: do}}, compensate: none}}]\n"
        );
        let plan = Arc::new(compile::load("x.yaml", &source).unwrap());
        Loaded { file: format!("{saga}-{version}.yaml"), source, plan }
    }

    #[test]
    fn an_exchange_is_of_one_type_and_made_in_one_way_in_all_definitions_that_are_in_force() {
        let direct = "exchanges: {orders: {type: direct}}";
        let found =
            |loaded: &[Loaded]| problems(loaded).iter().map(|one| one.message.clone()).collect::<Vec<_>>();
        let one = loaded("a", 1, direct, "orders");
        assert!(found(&[one.clone(), loaded("b", 1, direct, "orders")]).is_empty());
        assert_eq!(
            found(&[one.clone(), loaded("b", 1, "", "orders")]),
            ["exchange \"orders\" is of type topic here, and of type direct in a-1.yaml"]
        );
        // A version before it knew less, and goes on for its instances.
        assert!(found(&[loaded("a", 1, "", "orders"), loaded("a", 2, direct, "orders")]).is_empty());
        let made = |rest: &str| format!("exchanges: {{orders: {{type: direct, {rest}}}}}");
        let (kept, gone) = (made("arguments: {alternate-exchange: rest}"), made("durable: false"));
        let one_is_kept = loaded("a", 1, &kept, "orders");
        assert_eq!(
            found(&[one_is_kept.clone(), loaded("b", 1, &gone, "orders")]),
            ["exchange \"orders\" is made in another way here than in a-1.yaml"]
        );
        assert!(found(&[one_is_kept.clone(), loaded("b", 1, direct, "orders")]).is_empty());
        assert!(found(&[one_is_kept, loaded("b", 1, &kept, "orders")]).is_empty());
        let work = "exchanges: {work: {type: fanout, declare: false}}";
        assert!(found(&[loaded("a", 1, work, "orders"), loaded("b", 1, "", "orders")]).is_empty());
    }
}
