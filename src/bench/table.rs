//! The figures as tables for a terminal.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::disk;
use super::latency::Percentiles;
use super::report::{Report, Setting, Sides, Spread, Summary};
use super::scale_report::{Asked, Finished, InFlight, Questioned, ScaleReport};

/// KiB.
const MIB: f64 = 1024.0;

/// The report for people.
pub fn table(report: &Report) -> String {
    let Report { setting, throughput, half_load } = report;
    let Spread { min, median, max } = throughput.ratio;
    let mut text = format!(
        "\n{}\n\n{}\n\nratio of sagas/s: {median:.3}, from {min:.3} to {max:.3} over {} pairs\n",
        conditions(setting),
        costs(["null orchestrator", "sagamq"], &throughput.null, &throughput.sagamq),
        throughput.pairs.len(),
    );
    if let Some(half_load) = half_load {
        text += &format!(
            "\nfrom start event to end event at half load, {:.0} sagas/s:\n\n{}\n",
            half_load.sagas_per_s,
            latencies(&half_load.whole)
        );
        if let Some(held) = &half_load.held {
            text += &format!("\nof that, with the orchestrator itself:\n\n{}\n", latencies(held));
        }
        let written = latencies(&half_load.disk);
        text += &format!("\nthe disk meanwhile, {}:\n\n{written}\n", disk::IN_WORDS);
    }
    for warning in warnings(setting) {
        text += &format!("\nNOTE: {warning}\n");
    }
    text
}

/// The report on a store that has grown, for people.
pub fn scale_table(report: &ScaleReport) -> String {
    let ScaleReport { setting, finished, in_flight, questioned } = report;
    let mut text = format!("\n{}\n", conditions(setting));
    if let Some(finished) = finished {
        let Finished { instances, fill_secs, bytes_per_instance, empty, filled, pairs, .. } = finished;
        let Spread { min, median, max } = finished.ratio;
        text += &format!(
            "\n{instances} finished instances, made in {fill_secs:.0} s, {bytes_per_instance:.0} bytes on disk \
             each:\n\n{}\n\nratio of sagas/s: {median:.3}, from {min:.3} to {max:.3} over {} pairs\n",
            costs(["empty store", "this store"], empty, filled),
            pairs.len()
        );
    }
    if let Some(in_flight) = in_flight {
        text += &format!("\n{} instances in flight:\n\n{}\n", in_flight.instances, starts(in_flight));
    }
    let Questioned { asked, rounds, rounds_at_half_load, beside } = questioned;
    text += &format!(
        "\nanswers of the API with all of these in the store, idle ({rounds} of each) and beside {:.0} sagas/s \
         ({rounds_at_half_load} of each):\n\n{}\n",
        beside.sagas_per_s,
        answers(asked)
    );
    if let Some(Percentiles { p50_ms, p99_ms, max_ms, .. }) =
        beside.disk.as_ref().map(|disk| disk.percentiles)
    {
        text += &format!(
            "\nthe disk at half load, {}: p50 {p50_ms:.1} ms, p99 {p99_ms:.1} ms, longest \
             {max_ms:.1} ms\n",
            disk::IN_WORDS
        );
    }
    for warning in warnings(setting) {
        text += &format!("\nNOTE: {warning}\n");
    }
    text
}

fn starts(in_flight: &InFlight) -> Table {
    let InFlight { open_ms, take_up_ms, ready_ms, resident_kib, busy, .. } = in_flight;
    let mut table = empty(["median (lowest to highest)", "sagamq"]);
    let mut row = |name: &str, spread: &Spread, unit, digits| {
        table.add_row([Cell::new(name), right(spread_of(spread, unit, digits))]);
    };
    row("opening the store, ms", open_ms, 1.0, 0);
    row("taking the instances up after that, ms", take_up_ms, 1.0, 0);
    row("from the start of `sagamq run` until it is ready, ms", ready_ms, 1.0, 0);
    row("resident memory then, MiB", resident_kib, MIB, 1);
    let once = |value: f64| Spread { min: value, median: value, max: value };
    row("resident memory at the end of a run beside them, MiB", &once(busy.resident_kib as f64), MIB, 1);
    row("sagas a second of that run", &once(busy.sagas_per_s), 1.0, 0);
    table
}

fn answers(asked: &[Asked]) -> Table {
    let mut table = empty(["ms", "idle: p50", "p99", "longest", "half load: p50", "p99", "longest"]);
    for Asked { what, idle, half_load } in asked {
        let cells =
            [idle, half_load].into_iter().flat_map(|Percentiles { p50_ms, p99_ms, max_ms, .. }| {
                [p50_ms, p99_ms, max_ms].map(|ms| right(format!("{ms:.2}")))
            });
        table.add_row([Cell::new(what)].into_iter().chain(cells));
    }
    table
}

fn conditions(setting: &Setting) -> String {
    let Setting { version, cpus, broker, queue_type, prefetch, .. } = setting;
    let Setting { messages_of_a_saga, body_bytes, pairs, sagas, in_flight, .. } = setting;
    format!(
        "sagamq {version} on {cpus} CPUs with all else; {broker}, {queue_type} queues, prefetch {prefetch}\n\
         {pairs} pairs of {sagas} sagas, {in_flight} under way at a time, {messages_of_a_saga} messages of \
         {body_bytes} bytes a saga"
    )
}

/// A row a figure.
fn costs(names: [&str; 2], one: &Summary, other: &Summary) -> Table {
    type Figure = (&'static str, fn(&Summary) -> Spread, f64, usize);
    let figures: [Figure; 9] = [
        ("sagas a second", |summary| summary.sagas_per_s, 1.0, 0),
        ("CPU of the orchestrator a saga, \u{b5}s", |summary| summary.cpu_us_per_saga, 1.0, 0),
        ("resident memory, MiB", |summary| summary.resident_kib, MIB, 1),
        ("resident memory at most, MiB", |summary| summary.peak_resident_kib, MIB, 1),
        ("commits a saga", |summary| summary.commits_per_saga, 1.0, 3),
        ("fsyncs a saga", |summary| summary.fsyncs_per_saga, 1.0, 3),
        ("fsyncs a second", |summary| summary.fsyncs_per_s, 1.0, 0),
        ("bytes written a saga", |summary| summary.written_bytes_per_saga, 1.0, 0),
        ("messages a saga", |summary| summary.messages_per_saga, 1.0, 3),
    ];
    let mut table = empty(["median (lowest to highest)", names[0], names[1]]);
    for (name, figure, unit, digits) in figures {
        let cell = |summary| right(spread_of(&figure(summary), unit, digits));
        table.add_row([Cell::new(name), cell(one), cell(other)]);
    }
    table
}

/// A row a percentile.
fn latencies(sides: &Sides) -> Table {
    type Row = (&'static str, fn(&Percentiles) -> f64);
    let rows: [Row; 4] = [
        ("p50", |percentiles| percentiles.p50_ms),
        ("p99", |percentiles| percentiles.p99_ms),
        ("p99.9", |percentiles| percentiles.p999_ms),
        ("longest", |percentiles| percentiles.max_ms),
    ];
    let mut table = empty(["ms", "null orchestrator", "sagamq", "sagamq adds"]);
    for (name, of) in rows {
        let cell = |percentiles| right(format!("{:.1}", of(percentiles)));
        table.add_row([Cell::new(name), cell(&sides.null), cell(&sides.sagamq), cell(&sides.added)]);
    }
    table
}

/// What makes the figures worthless.
fn warnings(setting: &Setting) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if setting.debug_build {
        warnings.push("this is a debug build, whose figures mean nothing: use `make bench`");
    }
    if setting.store_in_memory {
        warnings
            .push("the store was in memory, where a sync costs nothing: name a folder on a disk by --folder");
    }
    warnings
}

/// The median, and between what it lies where that differs.
fn spread_of(spread: &Spread, unit: f64, digits: usize) -> String {
    let Spread { min, median, max } = spread;
    let [min, median, max] = [min, median, max].map(|value| format!("{:.digits$}", value / unit));
    if min == max { median } else { format!("{median} ({min} to {max})") }
}

fn empty<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(headings);
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
