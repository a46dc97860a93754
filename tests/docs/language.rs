//! The reference of the language has every field that the JSON Schema has, and examples that compile.

use std::collections::{BTreeMap, BTreeSet};

use sagamq::saga::compile;
use sagamq::saga::schema::schema;
use serde_json::Value;

use super::{DEFINITIONS, blocks, code, framed, shown};

/// Where the reference explains a type of the schema: a heading, and what stands before its fields there.
const PLACES: [(&str, &str, &str); 21] = [
    ("Definition", "At the top", ""),
    ("Start", "Start and cancel", "start."),
    ("Cancel", "Start and cancel", "cancel."),
    ("Subscription", "Subscription", ""),
    ("Exchange", "Exchanges", ""),
    ("Deadline", "Deadline", ""),
    ("Step", "Step", ""),
    ("Limit", "Limit", ""),
    ("Wait", "Wait", ""),
    ("Awaited", "Awaited event", ""),
    ("Delay", "Delay", ""),
    ("Emit", "Emit", ""),
    ("Call", "Call", ""),
    ("Foreach", "For each", ""),
    ("Parallel", "Blocks", ""),
    ("Sequence", "Blocks", ""),
    ("Command", "Command", ""),
    ("Compensation", "Compensation", ""),
    ("Rule", "Reply rule", ""),
    ("Policy", "Retry policy", ""),
    ("Ending", "Endings", ""),
];

/// The part of the page that is the reference, by heading.
fn reference() -> BTreeMap<&'static str, &'static str> {
    let (_, fields) = DEFINITIONS.split_once("\n## Fields\n").unwrap();
    let (fields, _) = fields.split_once("\n## ").unwrap();
    fields.split("\n### ").skip(1).map(|section| section.split_once('\n').unwrap()).collect()
}

/// The rows of all tables of fields of a section.
fn fields(section: &str) -> Vec<Vec<&str>> {
    let tables = section.split("| Field | Type | Default | Meaning |\n").skip(1);
    let rows = tables.flat_map(|table| table.lines().skip(1).take_while(|line| line.starts_with('|')));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The types of the schema that have fields.
fn types() -> BTreeMap<String, Value> {
    let mut schema = schema();
    let types = schema["$defs"].take();
    let mut types: BTreeMap<_, _> =
        types.as_object().unwrap().iter().map(|(name, of)| (name.clone(), of.clone())).collect();
    types.insert("Definition".to_owned(), schema);
    types.retain(|_, of| of["properties"].is_object());
    types
}

/// The words that a field may have, where it has words of its own.
fn words(field: &Value, types: &Value) -> Vec<String> {
    let text = field.to_string();
    let named = types.as_object().unwrap().iter();
    let referred = named.filter(|(name, _)| text.contains(&format!("\"#/$defs/{name}\"")));
    let consts = referred.flat_map(|(_, of)| of["oneOf"].as_array().into_iter().flatten());
    consts.filter_map(|one| one["const"].as_str().map(str::to_owned)).collect()
}

#[test]
fn the_reference_has_every_field_of_the_schema_and_no_other() {
    let (reference, types, all) = (reference(), types(), schema()["$defs"].take());
    let explained: BTreeSet<_> = PLACES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(
        types.keys().cloned().collect::<BTreeSet<_>>(),
        explained,
        "each type has its place in PLACES"
    );
    let mut expected: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for (name, heading, before) in PLACES {
        let section =
            fields(reference.get(heading).unwrap_or_else(|| panic!("there is no section {heading}")));
        let required = types[name]["required"].as_array().cloned().unwrap_or_default();
        for (field, of) in types[name]["properties"].as_object().unwrap() {
            let field = format!("{before}{field}");
            let rows: Vec<_> = section.iter().filter(|row| code(row[0]) == field).collect();
            let Some(row) = rows.first() else { panic!("{heading} does not have {field}") };
            let last = field.rsplit('.').next().unwrap();
            // What a step before the pivot must have and others must not is for the checker to say.
            let is_required = required.contains(&Value::from(last)) || field == "compensate";
            assert_eq!(row[2].starts_with("required"), is_required, "{heading}, {field}: {}", row[2]);
            for word in words(of, &all) {
                assert!(
                    row[1].contains(&format!("`{word}`")),
                    "{heading}, {field}: {word} is not in {}",
                    row[1]
                );
            }
            expected.entry(heading).or_default().insert(field);
        }
    }
    for (heading, expected) in expected {
        let rows = fields(reference[heading]);
        let told: BTreeSet<_> = rows.iter().map(|row| code(row[0]).to_owned()).collect();
        assert_eq!(told, expected, "{heading}");
    }
}

#[test]
fn the_reference_says_of_every_value_and_expression_what_it_sees() {
    for (heading, section) in reference() {
        for row in fields(section) {
            let is_seeing = row[1] == "value" || row[1].contains("expression");
            assert_eq!(is_seeing, row[3].contains("Sees `"), "{heading}, {}: {}", row[0], row[3]);
        }
    }
}

#[test]
fn every_form_of_the_reference_has_an_example_that_compiles() {
    let smallest = blocks(DEFINITIONS, "yaml").into_iter().find(|block| block.starts_with("saga:")).unwrap();
    for (heading, section) in reference() {
        let examples = blocks(section, "yaml");
        assert_eq!(examples.len(), section.matches("| Field |").count().max(1), "{heading}");
        for example in examples {
            if let Err(problems) = compile::load(heading, &framed(smallest, example)) {
                panic!("{heading}:\n{example}\n\n{}", shown(&problems));
            }
            let text = format!("\n{example}");
            let is_in = |field: &str| {
                ["\n", " ", "{"].iter().any(|before| text.contains(&format!("{before}{field}:")))
            };
            for row in fields(section) {
                let field = code(row[0]).rsplit('.').next().unwrap();
                let is_shown = is_in(field) || examples_are_apart(heading);
                assert!(is_shown, "the example of {heading} does not have {field}");
            }
        }
    }
}

/// Whether each example of a section shows some of its fields only.
fn examples_are_apart(heading: &str) -> bool {
    matches!(heading, "At the top" | "Blocks")
}

#[test]
fn the_smallest_definition_with_its_defaults_written_out_is_the_same() {
    let mut definitions = blocks(DEFINITIONS, "yaml").into_iter().filter(|block| block.starts_with("saga:"));
    let plans = [definitions.next().unwrap(), definitions.next().unwrap()].map(|source| {
        let plan = compile::load("docs/definitions.md", source).unwrap();
        format!("{plan:#?}").replace(&plan.hash, "")
    });
    assert_eq!(plans[0], plans[1]);
}
