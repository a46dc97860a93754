//! `sagamq asyncapi`: the messages of definitions as an AsyncAPI document.

use serde_json::Value;

use super::args::{AsyncApiArgs, AsyncApiFormat};
use super::error::{CliError, Exit};
use super::output;
use crate::definitions;
use crate::depict::asyncapi;
use crate::json;
use crate::saga::plan::Plan;

/// Prints one document for every definition under the paths, of all participants or of one.
///
/// # Errors
/// One of the definitions has a problem, or there is none; nobody is at the exchange that is named.
pub fn asyncapi(args: &AsyncApiArgs) -> Result<Exit, CliError> {
    let loaded = definitions::load_alone(&args.paths)?;
    let plans: Vec<_> = loaded.iter().map(|loaded| &*loaded.plan).collect();
    output::print(&written(&document(&plans, args.participant.as_deref())?, args.format))?;
    Ok(Exit::Fine)
}

fn document(plans: &[&Plan], participant: Option<&str>) -> Result<Value, CliError> {
    if let Some(name) = participant {
        let known = asyncapi::participants(plans);
        if !known.contains(name) {
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(CliError::NotFound(format!(
                "no participant has the exchange {name:?}: --participant takes one of {known}"
            )));
        }
    }
    Ok(asyncapi::document(plans, participant))
}

fn written(document: &Value, format: AsyncApiFormat) -> String {
    match format {
        AsyncApiFormat::Json => format!("{document:#}\n"),
        AsyncApiFormat::Yaml => json::yaml(document),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_participant_that_is_not_there_is_told_with_those_that_are() {
        let loaded = definitions::load_all(&["sagas/order.yaml".into()]).unwrap();
        let error = document(&[&loaded[0].plan], Some("inventroy")).unwrap_err();
        assert_eq!(error.exit(), Exit::Failed);
        let told = "no participant has the exchange \"inventroy\": \
                    --participant takes one of inventory, orders, payments, shipping";
        assert_eq!(error.to_string(), told);
    }

    #[test]
    fn yaml_says_what_json_says() {
        let loaded = definitions::load_all(&["sagas".into()]).unwrap();
        let plans: Vec<_> = loaded.iter().map(|loaded| &*loaded.plan).collect();
        let document = document(&plans, None).unwrap();
        let read: Value = serde_saphyr::from_str(&written(&document, AsyncApiFormat::Yaml)).unwrap();
        assert_eq!(read.to_string(), document.to_string());
        let read: Value = serde_json::from_str(&written(&document, AsyncApiFormat::Json)).unwrap();
        assert_eq!(read, document);
    }
}
