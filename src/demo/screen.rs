//! What the demo shows: a table that redraws on a terminal, plain lines otherwise.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

use super::ledger::Balance;
use super::orders::{Fate, Order};
use crate::saga::instance::Status;

/// Where the demo's words and tables go.
pub(super) struct Screen {
    live: Option<ProgressBar>,
    last: Mutex<String>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let live = io::stdout().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar
        });
        Self { live, last: Mutex::new(String::new()) }
    }

    /// A line that stays.
    pub(super) fn say(&self, words: &str) {
        match &self.live {
            Some(bar) => bar.suspend(|| print(&format!("* {words}\n"))),
            None => print(&format!("* {words}\n")),
        }
    }

    /// How far the orders are.
    pub(super) fn draw(&self, elapsed: Duration, orders: &[Order], statuses: &HashMap<String, Status>) {
        if let Some(bar) = &self.live {
            bar.set_message(format!("{}\n{:.1} s", picture(orders, statuses), elapsed.as_secs_f64()));
            return;
        }
        let counts = Status::ALL.map(|status| {
            format!("{status} {:>3}", statuses.values().filter(|seen| **seen == status).count())
        });
        let line = counts.join("  ");
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *last != line {
            print(&format!("  {:>5.1} s  {line}\n", elapsed.as_secs_f64()));
            *last = line;
        }
    }

    /// The tables at the end.
    pub(super) fn finish(
        &self,
        orders: &[Order],
        statuses: &HashMap<String, Status>,
        balance: &Balance,
        took: Duration,
    ) -> io::Result<()> {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
        let mut out = io::stdout().lock();
        writeln!(out, "\n{}\n\n{}\n", picture(orders, statuses), balance.table())?;
        writeln!(out, "{} orders in {:.1} s", orders.len(), took.as_secs_f64())
    }
}

/// A row a fate: how many orders, where they are, where they must end.
fn picture(orders: &[Order], statuses: &HashMap<String, Status>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    let mut header = vec!["fate".to_owned(), "orders".to_owned()];
    header.extend(Status::ALL.iter().map(ToString::to_string));
    header.push("must be".to_owned());
    header.push(String::new());
    table.set_header(header);
    for fate in Fate::ALL {
        let of_fate: Vec<&Order> = orders.iter().filter(|order| order.fate == fate).collect();
        if of_fate.is_empty() {
            continue;
        }
        let count = |status| of_fate.iter().filter(|order| statuses.get(&order.id) == Some(&status)).count();
        let number = |number: usize| {
            let text = if number == 0 { String::new() } else { number.to_string() };
            Cell::new(text).set_alignment(CellAlignment::Right)
        };
        let mut row = vec![Cell::new(fate.words()), number(of_fate.len())];
        row.extend(Status::ALL.map(|status| number(count(status))));
        row.push(Cell::new(fate.expected()));
        row.push(Cell::new(if count(fate.expected()) == of_fate.len() { "ok" } else { "" }));
        table.add_row(row);
    }
    table
}

/// Prints, unless nobody reads any more.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
