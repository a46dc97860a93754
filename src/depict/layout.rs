//! Where everything stands in a picture that is drawn here.
//!
//! ```text
//!   start          compensated      layer 0
//!     v                 ^
//!   step  - - - - >   undo          layer 1: one more than that of the last step it requires
//!     v                 ^
//!   step  - - - - - - - +           no undo: the way back passes by
//!     v
//!   completed
//! ```
//!
//! A step and what undoes it share a cell, and the cells of a layer stand side by side. An arrow over
//! several layers has a cell of its own in each between them, so that it crosses no box: between two
//! layers arrows bend, within a layer they are straight.

use std::cmp::Reverse;

use super::graph::{self, Node, Way};
use crate::saga::plan::{Kind, Plan};

/// Between a step and what undoes it.
const INNER_GAP: i32 = 56;
/// Between the cells of a layer.
const CELL_GAP: i32 = 40;
/// Between two layers.
const LAYER_GAP: i32 = 48;
/// A cell that arrows pass through, forward on its left side, back on its right one.
const PASSAGE: i32 = 20;
/// Height of a line of text, and what a box has around its lines.
pub(super) const LINE: i32 = 17;
pub(super) const PADDING: i32 = 12;
/// Half the height of the diamond on top of a box with a condition.
pub(super) const DIAMOND: i32 = 8;
/// Of the narrowest box.
const NARROWEST: i32 = 120;

/// A picture of a plan, from its upper left corner.
pub(super) struct Layout {
    pub(super) width: i32,
    pub(super) height: i32,
    pub(super) boxes: Vec<Placed>,
    pub(super) routes: Vec<Route>,
    /// Height of the line that every way forward crosses once, and no way back.
    pub(super) no_return: Option<i32>,
}

/// A box.
pub(super) struct Placed {
    pub(super) node: Node,
    pub(super) x: i32,
    pub(super) y: i32,
    pub(super) width: i32,
    pub(super) height: i32,
}

/// A line from point to point: straight to one beside or above, else bent.
pub(super) struct Route {
    pub(super) way: Way,
    pub(super) points: Vec<(i32, i32)>,
    /// Whether it ends in an arrow's head.
    pub(super) arrow: bool,
}

/// Places a plan; `width_of` tells how wide a box must be for its lines.
pub(super) fn layout(plan: &Plan, width_of: impl Fn(&[String]) -> i32) -> Layout {
    let is_back = |node: &Node| matches!(node, Node::Undo(_) | Node::Compensated);
    let (back, forward): (Vec<_>, Vec<_>) = graph::nodes(plan).into_iter().partition(is_back);
    let widest = |nodes: Vec<Node>| {
        nodes.iter().map(|node| width_of(&graph::lines(plan, *node))).fold(NARROWEST, i32::max)
    };
    let (step_width, undo_width) = (widest(forward), widest(back));

    let (mut cells, mut layers) = cells(plan);
    for cell in &mut cells {
        cell.width = match cell.holds {
            Holds::Passage => PASSAGE,
            _ => step_width + INNER_GAP + undo_width,
        };
    }
    put_in_order(&mut cells, &mut layers);
    let row_width = |cells: &[Cell], row: &[usize]| {
        row.iter().map(|&cell| cells[cell].width).sum::<i32>() + CELL_GAP * (row.len() as i32 - 1)
    };
    let picture_width = layers.iter().map(|row| row_width(&cells, row)).max().unwrap_or(0);
    let (mut y, mut tops) = (0, Vec::new());
    for layer in &layers {
        let mut x = (picture_width - row_width(&cells, layer)) / 2;
        let nodes = layer.iter().flat_map(|&cell| cells[cell].nodes(plan)).flatten();
        let lines = nodes.map(|node| graph::lines(plan, node).len()).max().unwrap_or(0);
        let height = lines as i32 * LINE + 2 * PADDING;
        for &cell in layer {
            let cell = &mut cells[cell];
            (cell.top, cell.bottom) = (y, y + height);
            (cell.forward, cell.back) = match cell.holds {
                Holds::Passage => (x, x + PASSAGE),
                _ => (x + step_width / 2, x + cell.width - undo_width / 2),
            };
            x += cell.width + CELL_GAP;
        }
        tops.push(y);
        y += height + LAYER_GAP;
    }
    let boxes = cells.iter().flat_map(|cell| {
        let [on_left, on_right] = cell.nodes(plan);
        let placed = |node, middle, width| Placed {
            node,
            x: middle - width / 2,
            y: cell.top,
            width,
            height: cell.bottom - cell.top,
        };
        let left = on_left.map(|node| placed(node, cell.forward, step_width));
        left.into_iter().chain(on_right.map(|node| placed(node, cell.back, undo_width)))
    });
    Layout {
        width: picture_width,
        height: y - LAYER_GAP,
        boxes: boxes.collect(),
        routes: routes(plan, &cells, step_width / 2, undo_width / 2),
        no_return: last_layer_with_return(plan, &cells).map(|layer| tops[layer + 1] - LAYER_GAP / 2),
    }
}

/// A place in a layer.
struct Cell {
    holds: Holds,
    layer: usize,
    /// The cells in the layer above that arrows come from.
    above: Vec<usize>,
    /// Where it stands in its layer, from left to right.
    rank: i32,
    width: i32,
    top: i32,
    bottom: i32,
    /// Where the ways forward and back go through it.
    forward: i32,
    back: i32,
}

#[derive(Clone, Copy)]
enum Holds {
    Start,
    Step(usize),
    Passage,
    Completed,
}

impl Cell {
    fn new(holds: Holds, layer: usize, above: Vec<usize>) -> Self {
        Self { holds, layer, above, rank: 0, width: 0, top: 0, bottom: 0, forward: 0, back: 0 }
    }

    /// The boxes on its left and on its right side.
    fn nodes(&self, plan: &Plan) -> [Option<Node>; 2] {
        match self.holds {
            Holds::Start => [Some(Node::Start), Some(Node::Compensated)],
            Holds::Step(step) => {
                [Some(Node::Do(step)), plan.steps[step].is_undoable().then_some(Node::Undo(step))]
            }
            Holds::Passage => [None, None],
            Holds::Completed => [Some(Node::Completed), None],
        }
    }
}

/// The cells, and those of each layer. The start is the first, the steps follow in their order.
fn cells(plan: &Plan) -> (Vec<Cell>, Vec<Vec<usize>>) {
    let mut cells = vec![Cell::new(Holds::Start, 0, Vec::new())];
    let steps = plan.steps.iter().enumerate();
    let required = steps.map(|(step, of)| (Holds::Step(step), of.requires.clone()));
    let last = (Holds::Completed, graph::last_steps(plan).collect());
    for (holds, requires) in required.chain([last]) {
        let mut above: Vec<_> = requires.iter().map(|step| step + 1).collect();
        if above.is_empty() {
            above.push(0);
        }
        let layer = above.iter().map(|&cell| cells[cell].layer + 1).max().unwrap_or(1);
        cells.push(Cell::new(holds, layer, above));
    }
    for cell in 1..cells.len() {
        for edge in 0..cells[cell].above.len() {
            let mut from = cells[cell].above[edge];
            for layer in cells[from].layer + 1..cells[cell].layer {
                cells.push(Cell::new(Holds::Passage, layer, vec![from]));
                from = cells.len() - 1;
            }
            cells[cell].above[edge] = from;
        }
    }
    let mut layers = vec![Vec::new(); cells.iter().map(|cell| cell.layer + 1).max().unwrap_or(0)];
    for (index, cell) in cells.iter().enumerate() {
        layers[cell.layer].push(index);
    }
    (cells, layers)
}

/// Puts the cells of each layer near those that arrows join them with, as far as there is room: once
/// downwards, once upwards, and downwards again.
fn put_in_order(cells: &mut [Cell], layers: &mut [Vec<usize>]) {
    let above: Vec<_> = cells.iter().map(|cell| cell.above.clone()).collect();
    let mut below = vec![Vec::new(); cells.len()];
    for (cell, above) in above.iter().enumerate() {
        above.iter().for_each(|&above| below[above].push(cell));
    }
    let downwards: Vec<_> = (0..layers.len()).collect();
    let upwards: Vec<_> = downwards.iter().rev().copied().collect();
    for (joined, order) in [(&above, &downwards), (&below, &upwards), (&above, &downwards)] {
        for &layer in order {
            let row = &mut layers[layer];
            row.sort_by_key(|&cell| match joined[cell].len() as i32 {
                0 => cells[cell].rank,
                joins => joined[cell].iter().map(|&other| cells[other].rank).sum::<i32>() / joins,
            });
            for (place, &cell) in row.iter().enumerate() {
                cells[cell].rank = (2 * place as i32 + 1) * 10_000 / (2 * row.len() as i32);
            }
        }
    }
}

/// Every arrow, over boxes of which these are half the widths.
fn routes(plan: &Plan, cells: &[Cell], half_step: i32, half_undo: i32) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut entered = vec![false; cells.len()];
    let reversed = |points: Vec<_>| points.into_iter().rev().collect();
    // From below, so that a cell knows whether the way back enters it.
    let mut order: Vec<_> = (0..cells.len()).collect();
    order.sort_by_key(|&index| Reverse(cells[index].layer));
    for index in order {
        let cell = &cells[index];
        let (turns, diamond) = match cell.holds {
            Holds::Passage => continue,
            Holds::Start | Holds::Completed => (false, 0),
            Holds::Step(step) => {
                let step = &plan.steps[step];
                (step.kind != Kind::Retriable, if step.when.is_some() { DIAMOND } else { 0 })
            }
        };
        for &above in &cell.above {
            let (passages, from) = upwards(cells, above);
            let through = |x: fn(&Cell) -> i32| {
                let points =
                    passages.iter().flat_map(move |cell| [(x(cell), cell.bottom), (x(cell), cell.top)]);
                points.chain([(x(&cells[from]), cells[from].bottom)])
            };
            let points = [(cell.forward, cell.top - diamond)].into_iter().chain(through(|cell| cell.forward));
            routes.push(Route { way: Way::Forward, points: reversed(points.collect()), arrow: true });
            if turns {
                let points = [(cell.back, cell.top)].into_iter().chain(through(|cell| cell.back)).collect();
                let arrow = cells[from].nodes(plan)[1].is_some();
                routes.push(Route { way: Way::Back, points, arrow });
                entered[from] = true;
            }
        }
        if turns {
            let middle = (cell.top + cell.bottom) / 2;
            let beside = (cell.forward + half_step, middle);
            let to_box = cell.nodes(plan)[1].is_some();
            let mut back = |points, arrow| routes.push(Route { way: Way::Back, points, arrow });
            if to_box {
                back(vec![beside, (cell.back - half_undo, middle)], true);
            } else if entered[index] {
                back(vec![beside, (cell.back, middle)], false);
                back(vec![(cell.back, cell.bottom), (cell.back, cell.top)], false);
            } else {
                back(vec![beside, (cell.back, middle), (cell.back, cell.top)], false);
            }
        }
    }
    routes
}

/// The passages upwards from a cell, and the first that is none.
fn upwards(cells: &[Cell], mut from: usize) -> (Vec<&Cell>, usize) {
    let mut passages = Vec::new();
    while let Cell { holds: Holds::Passage, above, .. } = &cells[from] {
        passages.push(&cells[from]);
        from = above[0];
    }
    (passages, from)
}

/// The layer of the pivot, where all that can turn back is above it or beside it, and nothing else is.
fn last_layer_with_return(plan: &Plan, cells: &[Cell]) -> Option<usize> {
    let of_steps = || plan.steps.iter().zip(&cells[1..]);
    let pivot = of_steps().find(|(step, _)| step.kind == Kind::Pivot)?.1.layer;
    of_steps().all(|(step, cell)| (step.kind == Kind::Retriable) == (cell.layer > pivot)).then_some(pivot)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fixture;
    use super::*;

    fn laid_out(plan: &Plan) -> Layout {
        layout(plan, |lines| lines.iter().map(|line| line.len() as i32 * 7).max().unwrap_or(0))
    }

    fn place(layout: &Layout, node: Node) -> &Placed {
        layout.boxes.iter().find(|placed| placed.node == node).unwrap()
    }

    #[test]
    fn a_chain_stands_in_two_columns() {
        let layout = laid_out(&fixture::order());
        let columns = [Node::Start, Node::Do(0), Node::Do(1), Node::Do(2), Node::Completed];
        let x: Vec<_> = columns.iter().map(|node| place(&layout, *node).x).collect();
        assert!(x.iter().all(|x| *x == 0), "{x:?}");
        assert_eq!(place(&layout, Node::Undo(0)).x, place(&layout, Node::Compensated).x);
        let (pivot, end) = (place(&layout, Node::Do(2)), place(&layout, Node::Completed));
        assert!((pivot.y + pivot.height..end.y).contains(&layout.no_return.unwrap()));
    }

    #[test]
    fn branches_stand_side_by_side_and_what_joins_them_below() {
        let layout = laid_out(&fixture::parallel());
        let y = |step: usize| place(&layout, Node::Do(step)).y;
        assert_eq!((y(1), y(6)), (y(2), y(7)));
        assert!(y(0) < y(1) && y(2) < y(3) && y(3) < y(5) && y(5) < y(6));
        let after_pivot = y(6);
        assert!((y(5)..after_pivot).contains(&layout.no_return.unwrap()));
    }

    proptest! {
        #[test]
        fn boxes_do_not_overlap_and_no_arrow_crosses_one(plan in fixture::any_plan()) {
            let layout = laid_out(&plan);
            for (index, a) in layout.boxes.iter().enumerate() {
                prop_assert!(a.x >= 0 && a.x + a.width <= layout.width);
                prop_assert!(a.y >= 0 && a.y + a.height <= layout.height);
                for b in &layout.boxes[..index] {
                    let apart = a.x + a.width <= b.x || b.x + b.width <= a.x
                        || a.y + a.height <= b.y || b.y + b.height <= a.y;
                    prop_assert!(apart, "{:?} and {:?}", a.node, b.node);
                }
            }
            for route in &layout.routes {
                for ends in route.points.windows(2) {
                    let [(x1, y1), (x2, y2)] = [ends[0], ends[1]];
                    let crosses = |placed: &&Placed| {
                        x1.min(x2) < placed.x + placed.width && placed.x < x1.max(x2).max(x1.min(x2) + 1)
                            && y1.min(y2) < placed.y + placed.height && placed.y < y1.max(y2).max(y1.min(y2) + 1)
                    };
                    // A bend stays between its ends, so the rectangle of both says where it is.
                    let crossed = layout.boxes.iter().find(crosses).map(|placed| placed.node);
                    prop_assert_eq!(crossed, None, "{:?} {:?}", route.way, ends);
                }
            }
        }
    }
}
