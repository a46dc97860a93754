//! Rules over messages: which of them can match, and what addresses can be.

use super::*;

/// A rule, as far as it matters which messages it takes.
pub(super) struct Taken {
    /// Those that it listens to; without, those of the reply queue.
    on: Option<Subscription>,
    /// Whether it takes all of them.
    all: bool,
    at: Place,
}

impl Taken {
    fn words(&self) -> usize {
        self.on.as_ref().map_or(1, |on| 1 + on.pattern.matches('.').count())
    }

    /// Whether it takes everything that the other could take.
    fn covers(&self, other: &Self) -> bool {
        self.all
            && match (&self.on, &other.on) {
                (None, None) => true,
                (Some(wide), Some(narrow)) => wide.covers(narrow),
                _ => false,
            }
    }
}

impl Lint<'_> {
    /// The rules of a call, which stand at `at` where they say no place of their own.
    pub(super) fn each_reply_can_match(&mut self, replies: &[Rule], at: Place) {
        let taken = replies.iter().map(|rule| {
            let places = [rule.on.as_ref().map(|on| on.at), rule.when.as_ref().map(|when| when.at)];
            let on = rule.on.as_ref().map(|on| on.compiled(&self.definition.exchanges));
            Taken { on, all: rule.when.is_none(), at: places.into_iter().flatten().next().unwrap_or(at) }
        });
        let taken: Vec<_> = taken.collect();
        self.each_can_match(&taken);
    }

    /// The events of a wait.
    pub(super) fn each_event_can_match(&mut self, events: &[definition::Awaited]) {
        let taken = events.iter().map(|event| {
            let on = Some(event.on.compiled(&self.definition.exchanges));
            Taken { on, all: event.when.is_none(), at: event.on.at }
        });
        let taken: Vec<_> = taken.collect();
        self.each_can_match(&taken);
    }

    /// The first rule that matches counts, so what an earlier one takes is never left for a later one.
    fn each_can_match(&mut self, rules: &[Taken]) {
        let words: usize = rules.iter().map(Taken::words).sum();
        if words.saturating_mul(words) > MAX_COMPARED {
            let message = "there are too many rules to hold each against each";
            let hint = "shorten their patterns, or move steps into sagas of their own";
            return self.refuse(Code::TooLarge, rules[0].at, message, Some(hint));
        }
        for (index, rule) in rules.iter().enumerate() {
            if rules[..index].iter().any(|earlier| earlier.covers(rule)) {
                let message = "this rule can never match: an earlier one takes all of its messages";
                let hint = "put it before the other one, and give it a `when` that tells them apart";
                self.refuse(Code::NeverMatches, rule.at, message, Some(hint));
            }
        }
    }

    /// A pattern of a topic exchange, where `*` is a word of its own: in another one it is a mere sign, and no key
    /// has it.
    pub(super) fn whole_words(&mut self, key: &Located<String>) {
        let is_part = |word: &&str| word.len() > 1 && (word.contains('*') || word.chars().all(|c| c == '#'));
        if let Some(word) = key.split('.').find(is_part) {
            let message = format!("{word:?} is no pattern: `*` and `#` stand for whole words");
            let hint = "`a.*` matches what has one more word behind `a`, `a.#` what has any number of them";
            self.refuse(Code::NotOfItsType, key.at, message, Some(hint));
        }
    }

    /// A key of what is published: no pattern.
    pub(super) fn no_pattern(&mut self, key: &Located<String>) {
        if key.split('.').any(|word| word == "*" || word == "#") {
            let message = "the key of what is published cannot be a pattern";
            let hint = "`*` and `#` only mean something where events are subscribed to: write the whole key";
            self.refuse(Code::PatternForKey, key.at, message, Some(hint));
        }
    }

    /// What nobody sees in a name, and yet makes it another one.
    pub(super) fn visible(&mut self, what: &str, text: &Located<String>) {
        let hint = "write it in one line, without blanks around its words; a block of `|` or `>` ends in a line break";
        let is_hidden = |c: char| {
            c.is_control()
                || matches!(c,
                    '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
                    | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
                    | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
        };
        if text.contains(['\n', '\r']) {
            self.refuse(Code::HiddenCharacter, text.at, format!("the {what} has a line break"), Some(hint));
        } else if text.contains(is_hidden) {
            let message = format!("the {what} has a character that nobody sees");
            self.refuse(Code::HiddenCharacter, text.at, message, Some(hint));
        } else if text.split('.').any(|word| word.trim() != word) {
            let message = format!("the {what} has a blank at the edge of a word");
            self.refuse(Code::HiddenCharacter, text.at, message, Some(hint));
        }
    }
}
