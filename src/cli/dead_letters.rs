//! `sagamq dead-letters`: messages that could not be used, and why.

use super::args::DeadLettersArgs;
use super::client::Client;
use super::error::{CliError, Exit};
use super::list::{more, page_parameters};
use super::output::{self, plain, table};
use crate::http::view::{DeadLetterView, PageView};

/// Asks for the dead letters and prints them.
///
/// # Errors
/// No orchestrator answers, or it refuses a parameter.
pub fn dead_letters(args: &DeadLettersArgs, client: &Client) -> Result<Exit, CliError> {
    output::print(&ask(args, client)?)?;
    Ok(Exit::Fine)
}

pub(crate) fn ask(args: &DeadLettersArgs, client: &Client) -> Result<String, CliError> {
    let parameters = page_parameters(&args.page);
    let pairs: Vec<_> = parameters.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = client.fetch("/api/v1/dead-letters", &pairs)?;
    if args.page.json { Ok(answer.text + "\n") } else { Ok(render(&client.read(&answer)?)) }
}

fn render(page: &PageView<DeadLetterView>) -> String {
    if page.items.is_empty() {
        return format!("no dead letters\n{}", more(page.next.as_deref()));
    }
    let mut table =
        table(&["time", "queue", "exchange", "key", "message id", "bytes", "reason", "body"], None);
    for letter in &page.items {
        table.add_row([
            letter.at.to_string(),
            plain(&letter.queue),
            plain(&letter.exchange),
            plain(&letter.key),
            plain(letter.message_id.as_deref().unwrap_or("")),
            letter.size.to_string(),
            plain(&letter.reason),
            plain(&letter.preview),
        ]);
    }
    format!("{}\n{}", table.trim_fmt(), more(page.next.as_deref()))
}
