//! A plan in the language of Graphviz.

use std::fmt::Write;

use super::graph::{self, Node, Way};
use super::words::{LONGEST, shortened, title};
use crate::saga::plan::{Kind, Plan};

/// The graph. Solid arrows go forward, dashed ones back; the pivot has a double border, and a retriable
/// step a bold one.
pub fn digraph(plan: &Plan) -> String {
    let title = title(plan);
    let caption = [title.clone()].into_iter().chain(graph::remarks(plan));
    let mut text = format!(
        "digraph {} {{\n    graph [label={}, labelloc=t, fontname=\"sans-serif\"];\n    node [shape=box, \
         fontname=\"sans-serif\", fontsize=11];\n",
        quoted(&title),
        label(caption)
    );
    for node in graph::nodes(plan) {
        let lines = graph::lines(plan, node);
        let (id, label, style) = (graph::id(plan, node), label(lines), style(plan, node));
        let _ = writeln!(text, "    {id} [label={label}{style}];");
    }
    for step in plan.steps.iter().filter(|step| step.is_undoable()) {
        let _ = writeln!(text, "    {{rank=same; do_{0}; undo_{0}}}", step.name);
    }
    text += "    {rank=same; start; compensated}\n";
    for edge in graph::edges(plan) {
        let style = match edge.way {
            Way::Forward => "",
            // The way forward alone says what stands above what.
            Way::Back => " [style=dashed, constraint=false]",
        };
        let _ = writeln!(text, "    {} -> {}{style};", graph::id(plan, edge.from), graph::id(plan, edge.to));
    }
    text + "}\n"
}

fn style(plan: &Plan, node: Node) -> &'static str {
    match node {
        Node::Start | Node::Completed | Node::Compensated => ", shape=ellipse",
        Node::Undo(_) => ", style=\"rounded,dashed\"",
        Node::Do(step) => match plan.steps[step].kind {
            Kind::Compensatable => "",
            Kind::Pivot => ", peripheries=2",
            Kind::Retriable => ", style=bold",
        },
    }
}

fn label(lines: impl IntoIterator<Item = String>) -> String {
    let lines: Vec<_> = lines.into_iter().map(|line| shortened(&line, LONGEST)).collect();
    quoted(&lines.join("\n"))
}

/// A text in quotes. A backslash would begin an escape.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture;
    use super::*;
    use crate::http::fixture::assert_golden;

    #[test]
    fn the_order_saga_is_drawn_as_in_the_golden_file() {
        assert_golden("order.dot", &digraph(&fixture::order()));
    }

    #[test]
    fn texts_cannot_leave_their_quotes() {
        assert_eq!(quoted("a \"b\\\"\nc"), r#""a \"b\\\"\nc""#);
    }

    proptest! {
        #[test]
        fn each_step_is_a_node_and_each_requirement_an_edge(plan in fixture::any_plan()) {
            let text = digraph(&plan);
            let lines = |line: String| text.lines().filter(|other| other.trim().starts_with(&line)).count();
            for (index, step) in plan.steps.iter().enumerate() {
                prop_assert_eq!(lines(format!("do_{} [label=", step.name)), 1);
                for (earlier, other) in plan.steps.iter().enumerate() {
                    let edges = usize::from(plan.steps[index].requires.contains(&earlier));
                    prop_assert_eq!(lines(format!("do_{} -> do_{};", other.name, step.name)), edges);
                }
            }
        }
    }
}
