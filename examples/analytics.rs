//! The analytics service: counts what happens to orders. It only listens; sagas know nothing of it.

mod common;

use std::collections::BTreeMap;
use std::io;

#[tokio::main]
async fn main() -> io::Result<()> {
    let bindings = [("orders", "order.*"), ("payments", "payment.processed"), ("shipping", "order.shipped")];
    let mut counts = BTreeMap::<String, u64>::new();
    let listened = common::listen("analytics", &bindings, |event| {
        *counts.entry(event.key).or_default() += 1;
        println!("analytics: {}", summary(&counts));
        Ok(())
    });
    listened.await?;
    println!("analytics: in all {}", summary(&counts));
    Ok(())
}

fn summary(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(key, count)| format!("{key} {count}")).collect::<Vec<_>>().join(", ")
}
