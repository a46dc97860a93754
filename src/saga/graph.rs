//! The graph that the blocks of a definition make: which steps come before which.
//!
//! ```text
//! reserve -> [hotel | car -> insure] -> pay
//!
//!               +-> 1 hotel ----------------+
//! 0 reserve ----+                           +--> 4 pay
//!               +-> 2 car ----> 3 insure ---+
//! ```
//!
//! Steps stand in the order in which they are written, so each requires earlier ones only.

use std::ops::Range;
use std::slice;

use super::definition::{Block, Form};

/// A step in its place of the graph.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// The step.
    pub(super) form: Form<'a>,
    /// Indices of the steps that must be settled before this one.
    pub(super) requires: Vec<usize>,
    /// All steps that are settled before this one, as indices: those before the outermost parallel
    /// block, and then in each branch that this step is in, those before it.
    pub(super) before: Vec<Range<usize>>,
}

impl Node<'_> {
    /// Whether the step is settled before this one.
    pub(super) fn is_after(&self, step: usize) -> bool {
        self.before.iter().any(|range| range.contains(&step))
    }

    /// Whether other steps may be under way at the same time.
    pub(super) fn is_in_branch(&self) -> bool {
        self.before.len() > 1
    }

    /// What is settled before this one, and this one.
    pub(super) fn before_and_itself(&self) -> Vec<Range<usize>> {
        let mut ranges = self.before.clone();
        if let Some(last) = ranges.last_mut() {
            last.end += 1;
        }
        ranges
    }
}

/// The steps of a definition in the order in which they are written.
pub(super) fn graph(blocks: &[Block]) -> Vec<Node<'_>> {
    let mut nodes = Vec::new();
    in_order(&mut nodes, blocks, Vec::new(), &[], 0);
    nodes
}

/// Adds blocks that follow one another on `requires`, in the branch that begins with step `start` and
/// stands after `outer`; gives the steps that what comes next requires.
fn in_order<'a>(
    nodes: &mut Vec<Node<'a>>,
    blocks: &'a [Block],
    mut requires: Vec<usize>,
    outer: &[Range<usize>],
    start: usize,
) -> Vec<usize> {
    for block in blocks {
        let here = nodes.len();
        let before = [outer, slice::from_ref(&(start..here))].concat();
        let mut leaf = |form, requires| {
            nodes.push(Node { form, requires, before: before.clone() });
            vec![here]
        };
        requires = match block {
            Block::Step(step) => leaf(Form::Step(step), requires),
            Block::Wait(wait) => leaf(Form::Wait(wait), requires),
            Block::Delay(delay) => leaf(Form::Delay(delay), requires),
            Block::Emit(emit) => leaf(Form::Emit(emit), requires),
            Block::Call(call) => leaf(Form::Call(call), requires),
            Block::Foreach(each) => leaf(Form::Foreach(each), requires),
            Block::Sequence(sequence) => in_order(nodes, &sequence.steps, requires, outer, start),
            Block::Parallel(parallel) => {
                let mut ends = Vec::new();
                for branch in &parallel.steps.value {
                    let start = nodes.len();
                    let branch = slice::from_ref(branch);
                    ends.append(&mut in_order(nodes, branch, requires.clone(), &before, start));
                }
                ends
            }
        };
    }
    requires
}

#[cfg(test)]
mod tests {
    use super::super::definition::parse;
    use super::*;

    const HEAD: &str =
        "saga: s\nversion: 1\nstart: {on: {exchange: e, key: k}, business_key: =event.id}\nsteps: ";

    /// Each row: a step, what it requires, and all that is before it. Steps are written as `<name>`.
    fn assert_graph(steps: &str, rows: &[(&str, &[usize], &[usize])]) {
        let steps = steps.replace('<', "{step: ").replace('>', ", command: {exchange: e, key: k}}");
        let definition = parse("f", &format!("{HEAD}{steps}")).unwrap();
        let nodes = graph(&definition.steps);
        assert_eq!(nodes.len(), rows.len());
        for (index, (node, (name, requires, before))) in nodes.iter().zip(rows).enumerate() {
            assert_eq!((node.form.name().as_str(), node.requires.as_slice()), (*name, *requires));
            let all: Vec<usize> = node.before.iter().cloned().flatten().collect();
            assert_eq!(all, *before, "{name}");
            let and_itself: Vec<usize> = node.before_and_itself().into_iter().flatten().collect();
            assert_eq!(and_itself, [*before, &[index]].concat(), "{name}");
        }
    }

    #[test]
    fn a_list_is_a_chain_and_a_sequence_is_one_too() {
        let rows: [(&str, &[usize], &[usize]); 3] =
            [("a", &[], &[]), ("b", &[0], &[0]), ("c", &[1], &[0, 1])];
        assert_graph("[<a>, <b>, <c>]", &rows);
        assert_graph("[<a>, {sequence: s, steps: [<b>, <c>]}]", &rows);
        assert_graph("[{sequence: s, steps: [<a>]}, {parallel: p, steps: [<b>]}, <c>]", &rows);
    }

    #[test]
    fn branches_require_what_is_before_the_block_and_are_required_by_what_follows() {
        assert_graph(
            "[<a>, {steps: [<b>, {sequence: s, steps: [<c>, <d>]}], parallel: p, join: all}, <e>]",
            &[
                ("a", &[], &[]),
                ("b", &[0], &[0]),
                ("c", &[0], &[0]),
                ("d", &[2], &[0, 2]),
                ("e", &[1, 3], &[0, 1, 2, 3]),
            ],
        );
    }

    #[test]
    fn blocks_nest_and_follow_each_other() {
        assert_graph(
            "[{parallel: p, steps: [{sequence: s, steps: [<a>, {parallel: q, steps: [<b>, <c>]}, <d>]}, <e>]}, \
              {parallel: r, steps: [<f>, <g>]}]",
            &[
                ("a", &[], &[]),
                ("b", &[0], &[0]),
                ("c", &[0], &[0]),
                ("d", &[1, 2], &[0, 1, 2]),
                ("e", &[], &[]),
                ("f", &[3, 4], &[0, 1, 2, 3, 4]),
                ("g", &[3, 4], &[0, 1, 2, 3, 4]),
            ],
        );
    }
}
