//! The balance: what the sample services' ledgers say was really done.
//!
//! The ledgers are written by the services themselves, so they do not depend on what the orchestrator
//! believes.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use comfy_table::{Table, presets};
use serde::Deserialize;

use super::DemoError;
use super::orders::{Fate, Order};
use crate::saga::instance::Status;

/// Stock and money of one run.
#[derive(Debug, Default)]
pub struct Balance {
    rows: Vec<Row>,
    surprises: Vec<String>,
}

/// One thing that is kept count of.
#[derive(Debug)]
struct Row {
    what: &'static str,
    done: i64,
    undone: i64,
    expected: i64,
}

/// The part of a ledger's line that counts.
#[derive(Debug, Deserialize)]
struct Entry {
    order_id: String,
    #[serde(default)]
    compensates: Option<String>,
    #[serde(default)]
    effect: HashMap<String, i64>,
}

impl Balance {
    /// Adds up the ledgers in a folder, and compares each order with its fate.
    pub(super) fn read(folder: &Path, orders: &[Order]) -> Result<Self, DemoError> {
        let mut balance = Self::default();
        // Reserving takes pieces off the stock, so the sign is turned to count what went to customers.
        balance.add("pieces of stock", &ledger(folder, "inventory", -1)?, orders, |order| {
            i64::from(order.quantity)
        });
        balance.add("cents of money", &ledger(folder, "payment", 1)?, orders, Order::cents);
        balance.add("parcels", &ledger(folder, "shipping", 1)?, orders, |_| 1);
        Ok(balance)
    }

    pub(super) fn surprises(&self) -> Vec<String> {
        self.surprises.clone()
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["by the services' ledgers", "done", "undone", "net", "must be", ""]);
        for row in &self.rows {
            let net = row.done - row.undone;
            let verdict = if net == row.expected { "ok" } else { "WRONG" };
            let numbers = [row.done, row.undone, net, row.expected].map(|number| number.to_string());
            table.add_row([&[row.what.to_owned()], numbers.as_slice(), &[verdict.to_owned()]].concat());
        }
        table
    }

    fn add(
        &mut self,
        what: &'static str,
        ledger: &HashMap<String, (i64, i64)>,
        orders: &[Order],
        full: impl Fn(&Order) -> i64,
    ) {
        let mut row = Row { what, done: 0, undone: 0, expected: 0 };
        for order in orders {
            let (done, undone) = ledger.get(&order.id).copied().unwrap_or_default();
            let expected = if order.fate.expected() == Status::Completed { full(order) } else { 0 };
            row.done += done;
            row.undone += undone;
            row.expected += expected;
            if done - undone != expected {
                self.surprises.push(format!(
                    "{what} of order {} ({}): net {} instead of {expected}",
                    order.id,
                    order.fate.words(),
                    done - undone
                ));
            }
            // A fate that is to undo something must have done it first, or it shows nothing.
            let must_undo = match order.fate {
                Fate::Silent => what != "parcels",
                Fate::Declined => what == "pieces of stock",
                Fate::Undeliverable => what != "parcels",
                _ => false,
            };
            if must_undo && undone != full(order) {
                self.surprises.push(format!("{what} of order {} were not done and undone", order.id));
            }
        }
        self.rows.push(row);
    }
}

/// What one service did and undid for each order.
fn ledger(folder: &Path, service: &str, sign: i64) -> Result<HashMap<String, (i64, i64)>, DemoError> {
    let path = folder.join(format!("{service}.ledger"));
    let text = fs::read_to_string(&path).map_err(|source| DemoError::File { path: path.clone(), source })?;
    let mut totals: HashMap<String, (i64, i64)> = HashMap::new();
    for line in text.lines() {
        let entry: Entry = serde_json::from_str(line)
            .map_err(|error| DemoError::File { path: path.clone(), source: error.into() })?;
        let amount: i64 = entry.effect.values().sum::<i64>() * sign;
        let (done, undone) = totals.entry(entry.order_id).or_default();
        match entry.compensates {
            None => *done += amount,
            Some(_) => *undone -= amount,
        }
    }
    Ok(totals)
}
