//! The figures as a picture: bars of each pair's sagas a second, and curves of the latency at half load.

use std::fmt::Write;

use super::report::{HalfLoad, Pair, Report, Throughput};
use super::run::{Orchestrator, Run};

/// Size of the picture; the second panel makes it this much wider.
const PANEL: f64 = 460.0;
const HEIGHT: f64 = 320.0;
/// Of a panel, within its axes.
const LEFT: f64 = 60.0;
const TOP: f64 = 50.0;
const WIDTH: f64 = 380.0;
const DEPTH: f64 = 210.0;
/// Lines across a panel.
const GRID: u32 = 4;

/// The report as an SVG.
pub fn picture(report: &Report) -> String {
    let panels = if report.half_load.is_some() { 2.0 } else { 1.0 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        panels * PANEL
    );
    svg += &bars(&report.throughput);
    if let Some(half_load) = &report.half_load {
        let _ = writeln!(svg, "<g transform=\"translate({PANEL} 0)\">\n{}</g>", curves(half_load));
    }
    svg += &legend(&report.setting.version);
    svg + "</svg>\n"
}

fn bars(throughput: &Throughput) -> String {
    let pairs = &throughput.pairs;
    let highest = pairs.iter().flat_map(runs).map(|(_, run)| run.sagas_per_s).fold(0.0, f64::max);
    let top = round_up(highest);
    let mut svg = text(LEFT, 20.0, "start", &format!("sagas a second, ratio {:.3}", throughput.ratio.median));
    for line in 0..=GRID {
        let share = f64::from(line) / f64::from(GRID);
        svg += &horizontal(share, &format!("{:.0}", share * top));
    }
    let slot = WIDTH / pairs.len().max(1) as f64;
    for (number, pair) in pairs.iter().enumerate() {
        let begin = LEFT + slot * number as f64;
        for (place, (orchestrator, run)) in runs(pair).into_iter().enumerate() {
            let (x, height) = (begin + slot * (0.1 + 0.4 * place as f64), run.sagas_per_s / top * DEPTH);
            let (y, width, colour) = (TOP + DEPTH - height, slot * 0.38, colour(orchestrator));
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\">\
                 <title>{}: {:.0} sagas/s</title></rect>",
                orchestrator.name(),
                run.sagas_per_s
            );
        }
        svg += &text(begin + slot / 2.0, TOP + DEPTH + 16.0, "middle", &format!("{:.3}", pair.ratio()));
    }
    svg
}

/// A curve a run: how many sagas in a hundred took at most so long. The time is logarithmic.
fn curves(half_load: &HalfLoad) -> String {
    let curves = || half_load.pairs.iter().flat_map(runs).map(|(who, run)| (who, &run.latency.curve_ms));
    let times = || curves().flat_map(|(_, curve)| curve).copied().filter(|ms| *ms > 0.0);
    let first = times().fold(f64::INFINITY, f64::min).log10().floor();
    let last = times().fold(0.0, f64::max).log10().ceil().max(first + 1.0);
    let across = |ms: f64| LEFT + (ms.max(10f64.powf(first)).log10() - first) / (last - first) * WIDTH;
    let rate = half_load.sagas_per_s;
    let mut svg =
        text(LEFT, 20.0, "start", &format!("% of sagas that took at most so many ms, at {rate:.0} sagas/s"));
    if !(first.is_finite() && last.is_finite()) {
        return svg;
    }
    for line in 0..=GRID {
        let share = f64::from(line) / f64::from(GRID);
        svg += &horizontal(share, &format!("{:.0}", share * 100.0));
    }
    for decade in first as i32..=last as i32 {
        let ms = 10f64.powi(decade);
        svg += &text(across(ms), TOP + DEPTH + 16.0, "middle", &format!("{ms}"));
    }
    for (orchestrator, curve) in curves() {
        let share = |index: usize| index as f64 / (curve.len() - 1).max(1) as f64;
        let points = curve
            .iter()
            .enumerate()
            .map(|(index, ms)| format!("{:.1},{:.1}", across(*ms), TOP + DEPTH * (1.0 - share(index))));
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>",
            points.collect::<Vec<_>>().join(" "),
            colour(orchestrator)
        );
    }
    svg
}

fn legend(version: &str) -> String {
    let y = HEIGHT - 16.0;
    let mut svg = String::new();
    for (x, orchestrator) in [(LEFT, Orchestrator::Null), (LEFT + 140.0, Orchestrator::Sagamq)] {
        let (colour, top) = (colour(orchestrator), y - 9.0);
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"{top}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>");
        let name = match orchestrator {
            Orchestrator::Null => orchestrator.name().to_owned(),
            Orchestrator::Sagamq => format!("{} {version}", orchestrator.name()),
        };
        svg += &text(x + 16.0, y, "start", &name);
    }
    svg
}

fn runs(pair: &Pair) -> [(Orchestrator, &Run); 2] {
    [(Orchestrator::Null, &pair.null), (Orchestrator::Sagamq, &pair.sagamq)]
}

fn colour(orchestrator: Orchestrator) -> &'static str {
    match orchestrator {
        Orchestrator::Null => "#9aa5b1",
        Orchestrator::Sagamq => "#d9662b",
    }
}

/// A line across the panel, at this share of its height.
fn horizontal(share: f64, label: &str) -> String {
    let y = TOP + DEPTH * (1.0 - share);
    let right = LEFT + WIDTH;
    let line = format!("<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\" stroke=\"#e4e7eb\"/>\n");
    line + &text(LEFT - 6.0, y + 4.0, "end", label)
}

/// Text that holds none of the characters which XML minds.
fn text(x: f64, y: f64, anchor: &str, words: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#323f4b\">{words}</text>\n")
}

/// The next of 1, 2, 2.5 and 5 times a power of ten.
fn round_up(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_ends_at_a_round_number_above_all_values() {
        assert_eq!(
            [0.0, 7.0, 10.0, 1_999.0, 2_100.0, 2_600.0].map(round_up),
            [1.0, 10.0, 10.0, 2_000.0, 2_500.0, 5_000.0]
        );
    }
}
