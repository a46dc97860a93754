//! The figures as tables for a terminal.

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::latency::Percentiles;
use super::report::{HalfLoad, Report, Setting, Spread, Summary};

/// The report for people.
pub fn table(report: &Report) -> String {
    let Report { setting, throughput, half_load } = report;
    let Spread { min, median, max } = throughput.ratio;
    let mut text = format!(
        "\n{}\n\n{}\n\nratio of sagas/s: {median:.3}, from {min:.3} to {max:.3} over {} pairs\n",
        conditions(setting),
        costs(&throughput.null, &throughput.sagamq),
        throughput.pairs.len(),
    );
    if let Some(half_load) = half_load {
        text += &format!(
            "\nfrom start event to end event at half load, {:.0} sagas/s:\n\n{}\n",
            half_load.sagas_per_s,
            latencies(half_load)
        );
    }
    for warning in warnings(setting) {
        text += &format!("\nNOTE: {warning}\n");
    }
    text
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
fn costs(null: &Summary, sagamq: &Summary) -> Table {
    type Figure = (&'static str, fn(&Summary) -> Spread, f64, usize);
    const MIB: f64 = 1024.0;
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
    let mut table = empty(["median (lowest to highest)", "null orchestrator", "sagamq"]);
    for (name, figure, unit, digits) in figures {
        let cell = |summary| {
            let Spread { min, median, max } = figure(summary);
            let [min, median, max] = [min, median, max].map(|value| format!("{:.digits$}", value / unit));
            right(if min == max { median } else { format!("{median} ({min} to {max})") })
        };
        table.add_row([Cell::new(name), cell(null), cell(sagamq)]);
    }
    table
}

/// A row a percentile.
fn latencies(half_load: &HalfLoad) -> Table {
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
        table.add_row([
            Cell::new(name),
            cell(&half_load.null),
            cell(&half_load.sagamq),
            cell(&half_load.added),
        ]);
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

fn empty<const N: usize>(headings: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_header(headings);
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}
