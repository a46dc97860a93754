//! What is seen while it runs: a line that redraws on a terminal, plain lines otherwise.

use std::io::{self, IsTerminal, Write};

use indicatif::{ProgressBar, ProgressStyle};

/// Where words and progress go.
pub(super) struct Screen {
    live: Option<ProgressBar>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let live = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("  {msg} {wide_bar} {pos}/{len}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { live }
    }

    /// A line that stays.
    pub(super) fn say(&self, words: &str) {
        // Nobody has to read it.
        let say = || drop(writeln!(io::stdout(), "* {words}"));
        match &self.live {
            Some(bar) => bar.suspend(say),
            None => say(),
        }
    }

    /// A run begins that is to have so many sagas.
    pub(super) fn begin(&self, what: &str, sagas: u64) {
        if let Some(bar) = &self.live {
            bar.set_message(what.to_owned());
            bar.set_length(sagas);
            bar.set_position(0);
        }
    }

    /// So many have ended.
    pub(super) fn advance(&self, sagas: u64) {
        if let Some(bar) = &self.live {
            bar.set_position(sagas);
        }
    }

    /// Nothing more will run.
    pub(super) fn clear(&self) {
        if let Some(bar) = &self.live {
            bar.finish_and_clear();
        }
    }
}
