//! Plans as an SVG that needs nothing from outside, for light and dark pages.

use std::fmt::Write;

use super::graph::{self, Node, Way};
use super::layout::{DIAMOND, LINE, Layout, PADDING, Placed, Route, layout};
use super::words::{LONGEST, shortened, title};
use crate::saga::plan::{Kind, Plan};

/// Longest line in a box, in characters; all of it shows under the pointer.
const LONGEST_IN_BOX: usize = 38;
/// Around a picture, and what its title takes.
const MARGIN: i32 = 28;
const HEADING: i32 = 40;

/// Colours for both kinds of pages. Without the second half, the picture is as on a light one.
const STYLE: &str = "\
.paper{fill:#ffffff} .box{fill:#f3f6fa;stroke:#5b6b7d} .pivot{fill:#fdf1e7;stroke:#c2571a;stroke-width:2.5}
.undo{fill:#ffffff;stroke:#5b6b7d;stroke-dasharray:5 3} .end{fill:#e8eef5;stroke:#5b6b7d}
.name{fill:#1c2733;font-weight:600} .detail{fill:#475566;font-size:12px}
.heading{fill:#1c2733;font-weight:600;font-size:17px}
.forward{stroke:#33475b} .back{stroke:#8a5a9e;stroke-dasharray:5 4} .forward,.back{fill:none;stroke-width:1.5}
.forward-head{fill:#33475b} .back-head{fill:#8a5a9e}
.no-return{stroke:#c2571a;stroke-dasharray:1 5;stroke-linecap:round;stroke-width:2}
.no-return-name{fill:#c2571a;font-size:12px}
@media (prefers-color-scheme:dark){
.paper{fill:#11171e} .box{fill:#1c2631;stroke:#8696a7} .pivot{fill:#33231a;stroke:#f0935a}
.undo{fill:#11171e;stroke:#8696a7} .end{fill:#243242;stroke:#8696a7}
.name,.heading{fill:#eef3f8} .detail{fill:#b4c0cc} .forward{stroke:#b4c4d4} .back{stroke:#c79ada}
.forward-head{fill:#b4c4d4} .back-head{fill:#c79ada} .no-return{stroke:#f0935a} .no-return-name{fill:#f0935a}
}
";

/// The plans as one picture, beneath each other.
pub fn picture<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> String {
    let (mut width, mut height, mut drawn, mut titles) = (0, 0, String::new(), Vec::new());
    for plan in plans {
        let (its_width, its_height, text) = drawing(plan);
        let _ = writeln!(drawn, "<g transform=\"translate(0 {height})\">\n{text}</g>");
        width = width.max(its_width);
        height += its_height;
        titles.push(title(plan));
    }
    let titles = escaped(&titles.join(", "));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"14px\">\n\
         <title>{titles}</title>\n<style>\n{STYLE}</style>\n<defs>\n{}{}</defs>\n\
         <rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n{drawn}</svg>\n",
        head("forward-head"),
        head("back-head"),
    )
}

/// Width and height of a plan's picture, and the picture.
fn drawing(plan: &Plan) -> (i32, i32, String) {
    let layout = layout(plan, width_of);
    let mut text = text(MARGIN, MARGIN + 12, "heading", "start", &title(plan));
    let _ = writeln!(text, "<g transform=\"translate({MARGIN} {})\">", MARGIN + HEADING);
    text += &no_return(&layout);
    layout.routes.iter().for_each(|route| text += &arrow(route));
    layout.boxes.iter().for_each(|placed| text += &a_box(plan, placed));
    text += "</g>\n";

    let mut remarks = vec![
        "Solid: forward. Dashed: back, when a step fails; what may have".to_owned(),
        "taken effect is undone, each step after those that require it.".to_owned(),
    ];
    remarks.extend(graph::remarks(plan).iter().map(|remark| shortened(remark, LONGEST)));
    let mut y = MARGIN + HEADING + layout.height + 16;
    let mut width = layout.width;
    for remark in &remarks {
        y += LINE;
        text += &self::text(MARGIN, y, "detail", "start", remark);
        width = width.max(detail_width(remark));
    }
    (width + 2 * MARGIN, y + MARGIN, text)
}

fn no_return(layout: &Layout) -> String {
    let Some(y) = layout.no_return else { return String::new() };
    let right = layout.width;
    let line = format!("<line class=\"no-return\" x1=\"0\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\"/>\n");
    line + &text(right, y - 6, "no-return-name", "end", "point of no return")
}

fn arrow(route: &Route) -> String {
    let class = match route.way {
        Way::Forward => "forward",
        Way::Back => "back",
    };
    let mut path = String::new();
    let mut last = None;
    for &(x, y) in &route.points {
        let _ = match last {
            None => write!(path, "M{x} {y}"),
            Some((from_x, from_y)) if from_x == x || from_y == y => write!(path, "L{x} {y}"),
            Some((from_x, from_y)) => {
                let middle = (from_y + y) / 2;
                write!(path, "C{from_x} {middle} {x} {middle} {x} {y}")
            }
        };
        last = Some((x, y));
    }
    let head = if route.arrow { format!(" marker-end=\"url(#{class}-head)\"") } else { String::new() };
    format!("<path class=\"{class}\" d=\"{path}\"{head}/>\n")
}

/// The head of an arrow, whose tip is where the line ends.
fn head(name: &str) -> String {
    format!(
        "<marker id=\"{name}\" viewBox=\"0 0 10 10\" refX=\"10\" refY=\"5\" markerWidth=\"8\" \
         markerHeight=\"8\" markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path class=\"{name}\" \
         d=\"M0 0L10 5L0 10z\"/></marker>\n"
    )
}

fn a_box(plan: &Plan, placed: &Placed) -> String {
    let (class, radius) = match placed.node {
        Node::Start | Node::Completed | Node::Compensated => ("end", placed.height / 2),
        Node::Undo(_) => ("undo", 8),
        Node::Do(step) if plan.steps[step].kind == Kind::Pivot => ("pivot", 8),
        Node::Do(_) => ("box", 8),
    };
    let lines = graph::lines(plan, placed.node);
    let Placed { x, y, width, height, .. } = placed;
    let mut svg = format!(
        "<g><title>{}</title>\n<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{width}\" \
         height=\"{height}\" rx=\"{radius}\"/>\n",
        escaped(&lines.join("\n"))
    );
    if matches!(placed.node, Node::Do(step) if plan.steps[step].when.is_some()) {
        let (middle, left) = (x + width / 2, x + width / 2 - 9);
        let (right, above, below) = (middle + 9, y - DIAMOND, y + DIAMOND);
        let _ = writeln!(
            svg,
            "<path class=\"{class}\" d=\"M{middle} {above}L{right} {y}L{middle} {below}L{left} {y}z\"/>"
        );
    }
    let free = height - 2 * PADDING - lines.len() as i32 * LINE;
    let first = y + PADDING + free / 2 + LINE - 4;
    for (number, line) in lines.iter().enumerate() {
        let class = if number == 0 { "name" } else { "detail" };
        let (middle, base) = (x + width / 2, first + number as i32 * LINE);
        svg += &text(middle, base, class, "middle", &shortened(line, LONGEST_IN_BOX));
    }
    svg + "</g>\n"
}

fn text(x: i32, y: i32, class: &str, anchor: &str, words: &str) -> String {
    let words = escaped(words);
    format!("<text x=\"{x}\" y=\"{y}\" class=\"{class}\" text-anchor=\"{anchor}\">{words}</text>\n")
}

/// Width of a box with these lines. Fonts differ, so this is of a wide one.
fn width_of(lines: &[String]) -> i32 {
    let width = |(number, line): (usize, &String)| {
        let line = shortened(line, LONGEST_IN_BOX);
        if number == 0 { line.chars().count() as i32 * 10 } else { detail_width(&line) }
    };
    lines.iter().enumerate().map(width).max().unwrap_or(0) + 2 * PADDING
}

fn detail_width(line: &str) -> i32 {
    line.chars().count() as i32 * 7
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture;
    use super::*;
    use crate::http::fixture::assert_golden;
    use crate::saga::plan::Work;

    #[test]
    fn a_fork_that_joins_is_drawn_as_in_the_golden_file() {
        assert_golden("parallel.svg", &picture([&fixture::parallel()]));
    }

    #[test]
    fn several_plans_stand_beneath_each_other_under_one_title() {
        let svg = picture([&fixture::order(), &fixture::parallel()]);
        assert!(svg.contains("<title>order v1, letters v2</title>"), "{svg}");
        assert_well_formed(&svg);
    }

    /// Fails unless every element is closed by its own end, and every `&` begins one of five entities.
    fn assert_well_formed(svg: &str) {
        let mut open = Vec::new();
        for piece in svg.split('<').skip(1) {
            let (tag, text) = piece.split_once('>').expect("every tag ends");
            assert!(!text.contains('>') && tag.matches('"').count() % 2 == 0, "<{piece}");
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None if tag.ends_with('/') => {}
                None => open.extend(tag.split(' ').next()),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        for after in svg.split('&').skip(1) {
            assert!(
                ["amp;", "lt;", "gt;", "quot;"].iter().any(|entity| after.starts_with(entity)),
                "&{after}"
            );
        }
    }

    proptest! {
        #[test]
        fn every_picture_is_well_formed_and_names_each_step(plan in fixture::any_plan()) {
            let svg = picture([&plan]);
            assert_well_formed(&svg);
            for step in &plan.steps {
                let name = format!("class=\"name\" text-anchor=\"middle\">{}</text>", step.name);
                prop_assert_eq!(svg.matches(&name).count(), 1);
            }
        }

        #[test]
        fn no_text_of_a_definition_breaks_the_picture(text in any::<String>()) {
            let mut plan = fixture::parallel();
            plan.start.as_mut().unwrap().on.exchange = text.clone();
            let Work::Command(call) = &mut plan.steps[0].work else { unreachable!() };
            call.key = text.into();
            assert_well_formed(&picture([&plan]));
        }
    }
}
