//! `sagamq schema`: the JSON Schema of the definition language, for editors.

use super::error::{CliError, Exit};
use super::output;
use crate::saga::schema;

/// Prints the schema, as it is committed in `sagas/saga.schema.json`.
///
/// # Errors
/// The output cannot be written.
pub fn schema() -> Result<Exit, CliError> {
    output::print(&text())?;
    Ok(Exit::Fine)
}

fn text() -> String {
    format!("{:#}\n", schema::schema())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_schema_is_the_one_of_the_code() {
        let committed = include_str!("../../sagas/saga.schema.json");
        assert_eq!(text(), committed, "run `sagamq schema > sagas/saga.schema.json`");
    }
}
