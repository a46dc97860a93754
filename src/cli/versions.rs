//! `sagamq versions`: which versions there are, and how many instances each still has.

use super::args::VersionsArgs;
use super::client::Client;
use super::error::{CliError, Exit};
use super::output::{self, plain, table};
use crate::http::definitions::{VersionView, Versions};

/// Characters of a hash that are shown.
const SHORT: usize = 12;

/// Asks for the versions and prints them.
///
/// # Errors
/// No orchestrator answers.
pub fn versions(args: &VersionsArgs, client: &Client) -> Result<Exit, CliError> {
    output::print(&ask(args, client)?)?;
    Ok(Exit::Fine)
}

pub(crate) fn ask(args: &VersionsArgs, client: &Client) -> Result<String, CliError> {
    let answer = client.fetch("/api/v1/definitions", &[])?;
    if args.json {
        return Ok(answer.text + "\n");
    }
    let Versions { mut items } = client.read(&answer)?;
    items.retain(|item| args.all || is_of_use(item));
    Ok(render(&items, None))
}

/// Whether it has a file, or an instance that has not ended.
fn is_of_use(item: &VersionView) -> bool {
    item.file.is_some() || item.running + item.compensating + item.parked > 0
}

fn render(items: &[VersionView], width: Option<u16>) -> String {
    if items.is_empty() {
        return "no versions\n".to_owned();
    }
    let headings = ["saga", "version", "hash", "in force", "running", "compensating", "parked", "file"];
    let mut table = table(&headings, width);
    for item in items {
        table.add_row([
            plain(&item.saga),
            item.version.to_string(),
            plain(&item.hash).chars().take(SHORT).collect(),
            if item.in_force { "yes" } else { "no" }.to_owned(),
            item.running.to_string(),
            item.compensating.to_string(),
            item.parked.to_string(),
            item.file.as_deref().map_or_else(|| "gone".to_owned(), plain),
        ]);
    }
    format!("{}\n", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_a_table() {
        let view = |version, in_force, file: Option<&str>| VersionView {
            saga: "order".to_owned(),
            version,
            hash: "b4867d9e923745b60e3d7d7082732d52cda861939b861c186d7ea68b3cf587e1".to_owned(),
            in_force,
            file: file.map(str::to_owned),
            running: 3,
            compensating: 1,
            parked: 0,
        };
        let items = [view(2, true, Some("sagas/order.yaml")), view(1, false, None)];
        let expected = " saga   version  hash          in force  running  compensating  parked  file
 order  2        b4867d9e9237  yes       3        1             0       sagas/order.yaml
 order  1        b4867d9e9237  no        3        1             0       gone
";
        assert_eq!(render(&items, Some(240)), expected);
        assert_eq!(render(&[], None), "no versions\n");
    }
}
