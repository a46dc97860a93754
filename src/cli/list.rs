//! `sagamq list`: sagas, one a line.

use chrono::Utc;

use super::args::{FilterArgs, ListArgs, PageArgs};
use super::client::Client;
use super::error::{CliError, Exit};
use super::output::{self, age, plain, reason, table};
use crate::http::view::{PageView, Summary};
use crate::saga::time::Timestamp;

/// Asks for the sagas that pass the filters and prints them.
///
/// # Errors
/// No orchestrator answers, or it refuses a filter.
pub fn list(args: &ListArgs, client: &Client) -> Result<Exit, CliError> {
    output::print(&ask(args, client)?)?;
    Ok(Exit::Fine)
}

pub(crate) fn ask(args: &ListArgs, client: &Client) -> Result<String, CliError> {
    let parameters: Vec<_> = filters(&args.filter).into_iter().chain(page_parameters(&args.page)).collect();
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = client.fetch("/api/v1/sagas", &pairs)?;
    if args.page.json {
        Ok(answer.text + "\n")
    } else {
        Ok(render(&client.read(&answer)?, Timestamp::from(Utc::now()), None))
    }
}

/// The parameters that say which instances are meant.
pub(super) fn filters(args: &FilterArgs) -> Vec<(&'static str, String)> {
    let statuses = (!args.status.is_empty()).then(|| args.status.join(","));
    let filters = [
        ("saga", args.saga.clone()),
        ("status", statuses),
        ("business_key", args.business_key.clone()),
        ("attribute", args.attribute.clone()),
        ("after", args.after.clone()),
        ("before", args.before.clone()),
    ];
    filters.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
}

/// The parameters that every list has.
pub(super) fn page_parameters(page: &PageArgs) -> Vec<(&'static str, String)> {
    let limit = page.limit.map(|limit| ("limit", limit.to_string()));
    let cursor = page.cursor.clone().map(|cursor| ("cursor", cursor));
    limit.into_iter().chain(cursor).collect()
}

/// How to get the next page, where there is one.
pub(super) fn more(next: Option<&str>) -> String {
    next.map(|cursor| format!("there are more: --cursor {}\n", plain(cursor))).unwrap_or_default()
}

fn render(page: &PageView<Summary>, now: Timestamp, width: Option<u16>) -> String {
    if page.items.is_empty() {
        return format!("no sagas\n{}", more(page.next.as_deref()));
    }
    let mut table = table(&["id", "saga", "business key", "status", "current step", "age", "error"], width);
    for item in &page.items {
        table.add_row([
            item.id.clone(),
            plain(&item.saga),
            plain(&item.business_key),
            item.status.clone(),
            plain(&item.current.join(", ")),
            age(item.started_at, now),
            item.error.as_ref().map(reason).unwrap_or_default(),
        ]);
    }
    format!("{}\n{}", table.trim_fmt(), more(page.next.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fixture;

    #[test]
    fn a_list_reads_as_in_the_golden_file() {
        let items = fixture::instances().iter().map(|(instance, _)| Summary::new(instance)).collect();
        let page = PageView { items, next: Some("abc".to_owned()) };
        let text = render(&page, fixture::at(125_000), Some(240));
        fixture::assert_golden("list.txt", &text);
    }
}
