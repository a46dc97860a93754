//! Error codes of definitions: a code never changes its meaning, and none is used again for another.
//!
//! The first two digits are the group. Each code has a section of its own name in `docs/check.md`.

use std::fmt;

/// The page that explains every code.
const PAGE: &str = "docs/check.md";

/// Makes the enum, and what can be told of each code, from one table.
macro_rules! codes {
    ($($name:ident $number:literal $title:literal,)*) => {
        /// What kind of problem it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All codes, in the order of their numbers.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as it is written: `S0203`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $number,)* }
            }

            /// What it means, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Code::$name => $title,)* }
            }
        }
    };
}

codes! {
    // The file and its form.
    Unreadable "S0101" "a file that cannot be read",
    NoDefinition "S0102" "a path without definitions",
    TooLarge "S0103" "a definition that is too large or nests too deep",
    NotYaml "S0104" "a file that is not YAML",
    UnknownField "S0105" "an unknown field",
    MissingField "S0106" "a missing field",
    RepeatedField "S0107" "a field that is there twice",
    UnknownValue "S0108" "an unknown value",
    WrongForm "S0109" "a value of the wrong form",
    SeveralDocuments "S0110" "more than one document",
    // S0111 was a form that was not supported yet.
    OneOfTwo "S0112" "not exactly one of two fields",

    // Names and references.
    InvalidName "S0201" "a name that is not allowed",
    RepeatedStep "S0202" "two steps of the same name",
    UnknownPolicy "S0203" "an unknown retry policy",
    StepNotBefore "S0204" "a reference to a step that is not before this one",
    UnknownStep "S0205" "a reference to an unknown step",
    NotInScope "S0206" "a name that is not in scope",
    UnknownPathField "S0207" "a reference to an unknown field",

    // Expressions.
    Syntax "S0301" "an expression that does not parse",
    BeyondBound "S0302" "an expression beyond a bound",
    UnknownName "S0303" "an unknown name",
    UnknownFunction "S0304" "an unknown function",
    LeftOutOfCel "S0305" "a part of CEL that is left out",
    AlwaysFails "S0306" "an expression that always fails",
    NotAnExpression "S0307" "a list or a mapping for an expression",
    NotACondition "S0308" "a condition that is neither true nor false",
    ConstantKey "S0309" "a business key that never differs",
    NotAList "S0310" "items that are no list",
    LooksLikeExpression "S0311" "a text that looks like an expression",

    // Steps and compensation.
    NoSteps "S0401" "a saga without steps",
    NoCompensation "S0402" "a step that does not say how it is undone",
    NeverUndone "S0403" "a compensation from the pivot on",
    SecondPivot "S0404" "a second pivot",
    NoWayBack "S0405" "a step after the pivot that is not retriable",
    NoPivotBefore "S0406" "a retriable step before any pivot",
    NoWayBackFromTimeout "S0407" "a timeout from the pivot on that compensates",
    PivotInParallel "S0408" "a pivot in a parallel block",
    EmptyBlock "S0409" "a block without steps",
    PivotOfItems "S0410" "a pivot for each item of a list",
    ItemsOutOfRange "S0411" "a bound on items that is out of range",

    // Time and retry.
    ZeroDuration "S0501" "a duration of zero",
    AttemptsOutOfRange "S0502" "attempts that are out of range",
    ShrinkingDelays "S0503" "a factor below 1",
    MaxBelowInitial "S0504" "a longest delay that is shorter than the first",
    OverDeadline "S0505" "a retry budget that is longer than the deadline",
    WithoutEnd "S0506" "unlimited attempts without a deadline",
    NoLimit "S0507" "a limit that says nothing or lets nothing through",
    NotATime "S0508" "an `until` that is no time",

    // Messages and routing.
    InvalidAddress "S0601" "an exchange, a key or a user that is empty or too long",
    ComputedAddress "S0602" "an expression for an exchange or a key",
    ErrorOfSuccess "S0603" "a success with an error code",
    OwnMessage "S0604" "a pattern that matches what the saga publishes itself",
    NoKey "S0605" "an event that finds no instance",
    NeverMatches "S0606" "a rule that can never match",
    PatternForKey "S0607" "a pattern for the key of what is published",
    HiddenCharacter "S0608" "an exchange or a key with characters that nobody sees",
    UnusedExchange "S0610" "a word on an exchange that nothing names",
    NotOfItsType "S0611" "a subscription that does not fit the type of its exchange",
    OwnHeader "S0612" "a header that is sagamq's own",
    InvalidProperty "S0613" "a header or a property that AMQP cannot carry",
    UnfitMake "S0614" "an exchange that cannot be made as it is written",

    // Versions.
    VersionZero "S0701" "a version of zero",
    RepeatedVersion "S0702" "a version that is defined twice",
    ChangedVersion "S0703" "a version that was changed",

    // Sagas that call sagas.
    UnknownSaga "S0801" "a call of a saga that is not there",
    EndlessCalls "S0802" "sagas that call each other in a circle",
    CalledPivot "S0803" "a call that could not be undone",
    TooManyLevels "S0804" "calls that nest too deep",
}

impl Code {
    /// Whether a definition holds in spite of it.
    pub fn is_warning(self) -> bool {
        self == Code::LooksLikeExpression
    }

    /// Where it is explained.
    pub fn help(self) -> String {
        format!("{PAGE}#{}", self.as_str().to_ascii_lowercase())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_number_of_its_own_in_rising_order() {
        let numbers: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(numbers.iter().all(|number| number.len() == 5 && number.starts_with('S')));
    }
}
