//! `sagamq schema`: the JSON Schemas of definitions and of scenarios, for editors.

use serde_json::Value;

use super::args::SchemaArgs;
use super::error::{CliError, Exit};
use super::output;
use crate::saga::schema;
use crate::trial;

/// Prints a schema, as it is committed in `sagas/saga.schema.json` or `sagas/scenarios.schema.json`.
///
/// # Errors
/// The output cannot be written.
pub fn schema(args: &SchemaArgs) -> Result<Exit, CliError> {
    output::print(&text(&if args.scenarios { trial::schema() } else { schema::schema() }))?;
    Ok(Exit::Fine)
}

fn text(schema: &Value) -> String {
    format!("{schema:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schemas_are_those_of_the_code() {
        let committed = include_str!("../../sagas/saga.schema.json");
        assert_eq!(text(&schema::schema()), committed, "run `sagamq schema > sagas/saga.schema.json`");
        let committed = include_str!("../../sagas/scenarios.schema.json");
        let how = "run `sagamq schema --scenarios > sagas/scenarios.schema.json`";
        assert_eq!(text(&trial::schema()), committed, "{how}");
    }
}
