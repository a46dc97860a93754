//! Writing for people: to a pipe that may be closed, with texts that may hold anything.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};

use crate::http::view::{Reason, Time};
use crate::saga::time::Timestamp;

/// Writes to the standard output. A reader that has gone away, as `head` does, is no error.
///
/// # Errors
/// The output cannot be written, as on a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Text from outside made safe for a terminal: control characters would move the cursor or change
/// its colours, a line break would look like a line of ours, and marks of direction would have the
/// rest of a line read the other way round. They are shown by their numbers.
pub(super) fn plain(text: &str) -> String {
    escape(text, |_| false)
}

/// The same for a text of several lines.
pub fn plain_lines(text: &str) -> String {
    escape(text, |c| c == '\n')
}

fn escape(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if (c.is_control() || is_unseen(c)) && !is_kept(c) {
            plain.extend(c.escape_unicode());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Characters that have no form of their own and change that of others: direction, joiners, breaks, tags.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A reason in one line.
pub(super) fn reason(reason: &Reason) -> String {
    let step = reason.step.as_ref().map(|step| format!("{step}: ")).unwrap_or_default();
    plain(&format!("{step}{} ({})", reason.message, reason.code))
}

/// How long ago something was, in the largest unit that fits.
pub(super) fn age(since: Time, now: Timestamp) -> String {
    let secs = now.since(since.0).as_secs();
    match secs {
        0..60 => format!("{secs}s"),
        60..3_600 => format!("{}m", secs / 60),
        3_600..86_400 => format!("{}h", secs / 3_600),
        _ => format!("{}d", secs / 86_400),
    }
}

/// How long something took, from milliseconds to hours.
pub(super) fn span(duration: Duration) -> String {
    let secs = duration.as_secs();
    match secs {
        0..60 => format!("{}.{:03}s", secs, duration.subsec_millis()),
        60..3_600 => format!("{}m {:02}s", secs / 60, secs % 60),
        _ => format!("{}h {:02}m", secs / 3_600, secs / 60 % 60),
    }
}

/// An empty table with these headings. Without a `width` it is as wide as the terminal, and where
/// there is none, as wide as its content.
pub(super) fn table(headings: &[&str], width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(headings.to_vec());
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_change_how_a_line_reads_is_shown_by_its_number() {
        let odd = "a\u{202e}b\u{2066}c\u{200b}d\u{1b}[2J\ne\u{9b}";
        assert_eq!(plain(odd), r"a\u{202e}b\u{2066}c\u{200b}d\u{1b}[2J\u{a}e\u{9b}");
        assert_eq!(plain_lines("one\ntwo\u{202e}"), "one\ntwo\\u{202e}");
        assert_eq!(plain("Müller 注文 ✓ עברית"), "Müller 注文 ✓ עברית");
    }
}
