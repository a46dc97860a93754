//! A plan as a Mermaid flowchart, which GitHub and many editors draw.

use std::fmt::Write;

use super::graph::{self, Node, Way};
use super::words::{LONGEST, shortened, title};
use crate::saga::plan::{Kind, Plan};

/// The flowchart. Solid arrows go forward, dashed ones back; the pivot is a hexagon, and a retriable step
/// has double sides.
pub fn flowchart(plan: &Plan) -> String {
    let mut text = format!("---\ntitle: {}\n---\nflowchart TD\n", title(plan));
    for node in graph::nodes(plan) {
        let label: Vec<_> = graph::lines(plan, node).iter().map(|line| escaped(line)).collect();
        let (open, close) = shape(plan, node);
        let _ = writeln!(text, "    {}{open}\"{}\"{close}", graph::id(plan, node), label.join("<br/>"));
    }
    for edge in graph::edges(plan) {
        let arrow = match edge.way {
            Way::Forward => "-->",
            Way::Back => "-.->",
        };
        let _ = writeln!(text, "    {} {arrow} {}", graph::id(plan, edge.from), graph::id(plan, edge.to));
    }
    for remark in graph::remarks(plan) {
        let _ = writeln!(text, "    %% {remark}");
    }
    text
}

fn shape(plan: &Plan, node: Node) -> (&'static str, &'static str) {
    match node {
        Node::Start | Node::Completed | Node::Compensated => ("([", "])"),
        Node::Undo(_) => ("(", ")"),
        Node::Do(step) => match plan.steps[step].kind {
            Kind::Compensatable => ("[", "]"),
            Kind::Pivot => ("{{", "}}"),
            Kind::Retriable => ("[[", "]]"),
        },
    }
}

/// A line of a label. What could mean something to Mermaid, Markdown or HTML is written by its number.
fn escaped(line: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || " .,:/-_".contains(c);
    let of_char = |c: char| if plain(c) { c.to_string() } else { format!("#{};", u32::from(c)) };
    shortened(line, LONGEST).chars().map(of_char).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture;
    use super::*;
    use crate::http::fixture::assert_golden;

    #[test]
    fn the_order_saga_is_drawn_as_in_the_golden_file() {
        assert_golden("order.mmd", &flowchart(&fixture::order()));
    }

    #[test]
    fn a_fork_that_joins_is_drawn_as_in_the_golden_file() {
        assert_golden("parallel.mmd", &flowchart(&fixture::parallel()));
    }

    proptest! {
        #[test]
        fn each_step_is_a_box_and_each_requirement_an_arrow(plan in fixture::any_plan()) {
            let text = flowchart(&plan);
            let lines = |line: String| text.lines().filter(|other| other.trim() == line).count();
            for (index, step) in plan.steps.iter().enumerate() {
                let begins = |line: &&str| {
                    let rest = line.trim().strip_prefix(&format!("do_{}", step.name));
                    rest.is_some_and(|rest| rest.starts_with(['[', '{']))
                };
                prop_assert_eq!(text.lines().filter(begins).count(), 1);
                for (earlier, other) in plan.steps.iter().enumerate() {
                    let arrows = usize::from(plan.steps[index].requires.contains(&earlier));
                    prop_assert_eq!(lines(format!("do_{} --> do_{}", other.name, step.name)), arrows);
                }
            }
        }
    }
}
