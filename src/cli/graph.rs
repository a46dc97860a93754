//! `sagamq graph`: definitions as pictures.

use std::path::PathBuf;

use super::args::GraphFormat;
use super::error::{CliError, Exit};
use super::output;
use crate::definitions::{self, Loaded};
use crate::depict::{dot, mermaid, svg};

/// Prints a picture of every definition under the paths.
///
/// # Errors
/// One of the definitions has a problem, or there is none.
pub fn graph(paths: &[PathBuf], format: GraphFormat) -> Result<Exit, CliError> {
    output::print(&drawn(&definitions::load_alone(paths)?, format))?;
    Ok(Exit::Fine)
}

fn drawn(loaded: &[Loaded], format: GraphFormat) -> String {
    let plans = loaded.iter().map(|loaded| &*loaded.plan);
    match (format, loaded) {
        (GraphFormat::Svg, _) => svg::picture(plans),
        (GraphFormat::Dot, _) => plans.map(dot::digraph).collect(),
        (GraphFormat::Mermaid, [one]) => mermaid::flowchart(&one.plan),
        // A flowchart is a document of its own, so several need one around them.
        (GraphFormat::Mermaid, _) => {
            let fenced = plans.map(|plan| format!("```mermaid\n{}```\n", mermaid::flowchart(plan)));
            fenced.collect::<Vec<_>>().join("\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_a_definition_calls_need_not_be_there_to_draw_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("order.yaml");
        let calls = "  - {call: insure, saga: insurance}\n  - step: charge_payment";
        fs::write(
            &path,
            include_str!("../../sagas/order.yaml").replacen("  - step: charge_payment", calls, 1),
        )
        .unwrap();
        let alone = definitions::load_alone(&[path]).unwrap();
        assert!(drawn(&alone, GraphFormat::Mermaid).contains("insurance"));
    }

    #[test]
    fn several_definitions_come_one_after_another() {
        let folder = tempfile::tempdir().unwrap();
        let order = include_str!("../../sagas/order.yaml");
        fs::write(folder.path().join("1.yaml"), order).unwrap();
        fs::write(folder.path().join("2.yaml"), order.replace("version: 1", "version: 2")).unwrap();
        let loaded = definitions::load_all(&[folder.path().to_owned()]).unwrap();
        let mermaid = drawn(&loaded, GraphFormat::Mermaid);
        assert_eq!(mermaid.matches("```mermaid\n---\ntitle: order v").count(), 2, "{mermaid}");
        assert!(drawn(&loaded[1..], GraphFormat::Mermaid).starts_with("---\ntitle: order v2\n"));
        assert_eq!(drawn(&loaded, GraphFormat::Dot).matches("digraph \"order v").count(), 2);
        assert_eq!(drawn(&loaded, GraphFormat::Svg).matches("<svg ").count(), 1);
    }

    #[test]
    fn a_definition_with_a_problem_is_told_as_by_check_and_not_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.yaml");
        fs::write(&path, "saga: c\nversoin: 1\n").unwrap();
        let error = graph(&["sagas/order.yaml".into(), path], GraphFormat::Svg).unwrap_err();
        assert_eq!(error.exit(), Exit::Failed);
        assert!(error.to_string().contains("did you mean `version`?"), "{error}");
    }
}
