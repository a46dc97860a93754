//! `sagamq check`: tells what is wrong with definitions before they are run.

use serde_json::{Value, json};

use super::args::CheckArgs;
use super::error::{CliError, Exit};
use super::output;
use crate::definitions::{self, Loaded};
use crate::saga::definition::{self, Block};
use crate::saga::plan::{Kind, Step};
use crate::saga::problem::Problem;

/// Checks every definition under the paths, and prints one line for each that holds and each problem
/// with its line of the file; or all of it as one JSON document.
///
/// # Errors
/// The output cannot be written.
pub fn check(args: &CheckArgs) -> Result<Exit, CliError> {
    let (loaded, problems) = definitions::load_paths(&args.paths);
    output::print(&if args.json { document(&loaded, &problems) } else { report(&loaded, &problems) })?;
    // Without any definition nothing was checked.
    let fine = problems.is_empty() && !loaded.is_empty();
    Ok(if fine { Exit::Fine } else { Exit::Failed })
}

fn report(loaded: &[Loaded], problems: &[Problem]) -> String {
    let fine = loaded.iter().map(|loaded| format!("{}: {}\n", loaded.file, summary(loaded)));
    let warnings = definitions::warnings(loaded);
    fine.chain(warnings.iter().chain(problems).map(|problem| format!("{problem}\n\n"))).collect()
}

fn document(loaded: &[Loaded], problems: &[Problem]) -> String {
    let definitions: Vec<_> = loaded.iter().map(definition).collect();
    let told = |problems: &[Problem]| problems.iter().map(Problem::to_json).collect::<Vec<_>>();
    let (warnings, problems) = (told(&definitions::warnings(loaded)), told(problems));
    format!("{:#}\n", json!({"definitions": definitions, "warnings": warnings, "problems": problems}))
}

fn definition(Loaded { file, plan, .. }: &Loaded) -> Value {
    let name = |step: &usize| plan.steps[*step].name.as_str();
    let requires = |step: &Step| step.requires.iter().map(name).collect::<Vec<_>>();
    let step = |step: &Step| json!({"name": step.name, "kind": kind(step), "requires": requires(step)});
    let steps: Vec<_> = plan.steps.iter().map(step).collect();
    json!({"file": file, "saga": plan.saga, "version": plan.version, "hash": plan.hash, "steps": steps})
}

fn kind(step: &Step) -> &'static str {
    match step.kind {
        Kind::Compensatable => "compensatable",
        Kind::Pivot => "pivot",
        Kind::Retriable => "retriable",
    }
}

fn summary(Loaded { file, source, plan }: &Loaded) -> String {
    let definition = definition::parse(file, source).expect("it was parsed before");
    let count = match plan.steps.len() {
        1 => "1 step".to_owned(),
        count => format!("{count} steps"),
    };
    format!("{} v{}, {count}: {}", plan.saga, plan.version, outline(&definition.steps, " -> "))
}

/// Steps as `reserve -> [hotel | car -> insurance] -> pay (pivot)`.
fn outline(blocks: &[Block], between: &str) -> String {
    let outlined = |block: &Block| match block {
        Block::Step(step) => {
            let is_pivot = step.kind.as_ref().is_some_and(|kind| kind.value == definition::Kind::Pivot);
            format!("{}{}", step.step.value, if is_pivot { " (pivot)" } else { "" })
        }
        Block::Wait(wait) => format!("{} (wait)", wait.wait.value),
        Block::Delay(delay) => format!("{} (delay)", delay.delay.value),
        Block::Emit(emit) => format!("{} (emit)", emit.emit.value),
        Block::Call(call) => {
            let is_pivot = call.kind.as_ref().is_some_and(|kind| kind.value == definition::Kind::Pivot);
            format!(
                "{} (calls {}{})",
                call.call.value,
                call.saga.value,
                if is_pivot { ", pivot" } else { "" }
            )
        }
        Block::Foreach(each) => {
            format!("{} (each: {})", each.foreach.value, outline(&each.steps, between))
        }
        Block::Parallel(parallel) => format!("[{}]", outline(&parallel.steps, " | ")),
        Block::Sequence(sequence) => outline(&sequence.steps, " -> "),
    };
    blocks.iter().map(outlined).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    const ORDER: &str = include_str!("../../sagas/order.yaml");

    fn reported(paths: &[PathBuf]) -> String {
        let (loaded, problems) = definitions::load_paths(paths);
        report(&loaded, &problems)
    }

    #[test]
    fn a_fine_definition_is_summed_up_in_a_line() {
        let expected =
            "sagas/order.yaml: order v1, 3 steps: reserve_stock -> charge_payment -> ship (pivot)\n";
        assert_eq!(reported(&["sagas/order.yaml".into()]), expected);
    }

    #[test]
    fn branches_are_shown_side_by_side() {
        let expected = "sagas/trip.yaml: trip v1, 6 steps: \
            [book_hotel | book_flight | book_car -> insure_car] -> charge (pivot) -> confirm\n";
        assert_eq!(reported(&["sagas/trip.yaml".into()]), expected);
    }

    #[test]
    fn problems_of_all_files_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("deeper")).unwrap();
        file("a.yaml", ORDER);
        file("deeper/b.yml", ORDER);
        file("c.yaml", "saga: c\nversoin: 1\n");
        file("d.test.yaml", "not a definition");
        file(".hidden.yaml", "not a definition");
        let text = reported(&[folder.path().into(), "nowhere".into()]);
        assert!(text.contains("a.yaml: order v1"), "{text}");
        assert!(text.contains("order v1 is already defined in"), "{text}");
        assert!(text.contains("c.yaml:2:1\n  |\n2 | versoin: 1\n  | ^^^^^^^\n"), "{text}");
        assert!(text.contains("did you mean `version`?"), "{text}");
        assert!(text.contains("cannot be read"), "{text}");
        assert_eq!(text.matches("error[S").count(), 3, "{text}");
    }

    #[test]
    fn a_folder_without_definitions_fails_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let args = CheckArgs { paths: vec![folder.path().into()], json: false };
        assert!(matches!(check(&args), Ok(Exit::Failed)));
        assert!(reported(&args.paths).contains("there is no saga definition"));
    }

    #[test]
    fn json_has_what_the_text_has() {
        let folder = tempfile::tempdir().unwrap();
        let broken = folder.path().join("broken.yaml");
        fs::write(&broken, ORDER.replace("retry: normal", "retry: nromal")).unwrap();
        let (loaded, problems) =
            definitions::load_paths(&["sagas/order.yaml".into(), broken.clone(), "nowhere".into()]);
        let document: Value = serde_json::from_str(&document(&loaded, &problems)).unwrap();
        assert_eq!(
            document["definitions"],
            json!([{
                "file": "sagas/order.yaml",
                "saga": "order",
                "version": 1,
                "hash": loaded[0].plan.hash,
                "steps": [
                    {"name": "reserve_stock", "kind": "compensatable", "requires": []},
                    {"name": "charge_payment", "kind": "compensatable", "requires": ["reserve_stock"]},
                    {"name": "ship", "kind": "pivot", "requires": ["charge_payment"]},
                ],
            }])
        );
        assert_eq!(document["problems"].as_array().map(Vec::len), Some(4));
        let [at_place, whole] = [&document["problems"][0], &document["problems"][3]];
        assert_eq!(
            *at_place,
            json!({
                "code": "S0203",
                "title": "an unknown retry policy",
                "file": broken,
                "line": 56,
                "column": 12,
                "end_column": 18,
                "snippet": "    retry: nromal",
                "message": "unknown retry policy \"nromal\"",
                "hint": "did you mean `normal`?",
                "help": "docs/check.md#s0203",
            })
        );
        assert_eq!(
            (&whole["code"], &whole["line"], &whole["snippet"]),
            (&json!("S0101"), &json!(null), &json!(null))
        );
    }
}
