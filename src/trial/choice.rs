//! Choice: which of the paths with two faults are played, where there are too many.

use fastrand::Rng;

use super::Selection;
use super::path::Fault;

/// A definition with no more pairs is played whole: one of thirty steps has fewer, and takes some minutes.
const WHOLE: usize = 500_000;
/// Pairs that are played of a larger one: they take about as long as its paths with one fault.
const SAMPLE: usize = 10_000;

/// Which pairs are played.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Choice {
    /// How many pairs there are, whether both commands are sent or not; none where they are left out.
    pub(super) pairs: usize,
    /// About how many of them are to be played.
    chosen: usize,
    /// About how many paths that makes, with those with one fault.
    pub(super) paths: usize,
}

impl Choice {
    /// The choice for commands that so many faults can befall each, success included.
    pub(super) fn new(possible: &[usize], selection: Selection<'_>) -> Self {
        let alone = possible.iter().sum();
        let (mut pairs, mut later) = (0_usize, 0_usize);
        for faults in possible.iter().rev().map(|faults| faults.saturating_sub(1)) {
            pairs = pairs.saturating_add(faults.saturating_mul(later));
            later += faults;
        }
        let most = match selection.pairs {
            // Who asks for some by name wants those.
            Some(0) => 0,
            _ if selection.filter.is_some() => pairs,
            Some(most) => most,
            None if pairs <= WHOLE => pairs,
            None => SAMPLE,
        };
        let chosen = pairs.min(most);
        Self { pairs: if most == 0 { 0 } else { pairs }, chosen, paths: chosen.saturating_add(alone) }
    }

    /// The dice for the pairs of a command and a fault: the same in each run, whoever plays them.
    pub(super) fn dice(&self, index: usize, fault: Fault) -> Rng {
        let group = index.saturating_mul(Fault::ALL.len()).saturating_add(fault as usize);
        Rng::with_seed(u64::try_from(group).unwrap_or(u64::MAX))
    }

    /// Whether the next pair is played.
    pub(super) fn takes(&self, dice: &mut Rng) -> bool {
        self.chosen == self.pairs || dice.usize(..self.pairs) < self.chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(possible: &[usize], pairs: Option<usize>) -> Choice {
        Choice::new(possible, Selection { paths: true, pairs, filter: None, time_lines: false })
    }

    #[test]
    fn thirty_steps_that_everything_can_befall_are_played_whole_and_two_hundred_are_not() {
        let thirty = choice(&[Fault::ALL.len(); 60], None);
        assert_eq!((thirty.pairs, thirty.chosen), (14 * 14 * 60 * 59 / 2, 14 * 14 * 60 * 59 / 2));
        assert!(thirty.takes(&mut thirty.dice(0, Fault::Late)));
        let many = choice(&[13; 400], None);
        assert_eq!((many.chosen, many.paths), (SAMPLE, SAMPLE + 5_200));
        assert_eq!(choice(&[13; 400], Some(usize::MAX)).chosen, many.pairs);
        let filter = Some("late");
        let named = Selection { paths: true, pairs: Some(9), filter, time_lines: false };
        assert_eq!(Choice::new(&[13; 400], named).chosen, many.pairs);
        assert_eq!(choice(&[3, 3], Some(0)).pairs, 0);
    }

    #[test]
    fn a_sample_is_about_as_large_as_was_asked_for_and_always_the_same() {
        let choice = choice(&[13; 40], Some(1_000));
        let taken = || {
            let groups = (0..40)
                .flat_map(|index| Fault::ALL.into_iter().skip(1).take(12).map(move |fault| (index, fault)));
            let of = |(index, fault)| {
                let mut dice = choice.dice(index, fault);
                (0..(39 - index) * 12).map(|_| choice.takes(&mut dice)).collect::<Vec<_>>()
            };
            groups.flat_map(of).collect::<Vec<_>>()
        };
        let first = taken();
        assert_eq!(first.len(), choice.pairs);
        assert!((800..1_200).contains(&first.iter().filter(|taken| **taken).count()));
        assert_eq!(first, taken());
    }
}
