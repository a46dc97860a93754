//! `sagamq check`: tells what is wrong with definitions before they are run.

use std::io::{self, Write};
use std::path::PathBuf;

use super::error::{CliError, Exit};
use super::output;
use crate::definitions::{self, Loaded};
use crate::saga::plan::{Kind, Plan, Step};

/// Checks every definition under `paths`, and prints one line for each that holds and each problem
/// with its line of the file.
///
/// # Errors
/// The output cannot be written.
pub fn check(paths: &[PathBuf]) -> Result<Exit, CliError> {
    let mut text = Vec::new();
    let fine = write_report(paths, &mut text)?;
    output::print(&String::from_utf8_lossy(&text))?;
    Ok(if fine { Exit::Fine } else { Exit::Failed })
}

/// Returns whether all is well; without any definition it is not.
fn write_report(paths: &[PathBuf], out: &mut impl Write) -> io::Result<bool> {
    let (loaded, problems) = definitions::load_paths(paths);
    for Loaded { file, plan, .. } in &loaded {
        writeln!(out, "{file}: {}", summary(plan))?;
    }
    for problem in &problems {
        writeln!(out, "{problem}\n")?;
    }
    Ok(problems.is_empty() && !loaded.is_empty())
}

fn summary(plan: &Plan) -> String {
    let name = |step: &Step| match step.kind {
        Kind::Pivot => format!("{} (pivot)", step.name),
        Kind::Compensatable | Kind::Retriable => step.name.clone(),
    };
    let steps: Vec<_> = plan.steps.iter().map(name).collect();
    let count = if steps.len() == 1 { "1 step".to_owned() } else { format!("{} steps", steps.len()) };
    format!("{} v{}, {count}: {}", plan.saga, plan.version, steps.join(" -> "))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const ORDER: &str = include_str!("../../sagas/order.yaml");

    fn checked(paths: &[PathBuf]) -> (bool, String) {
        let mut out = Vec::new();
        let fine = write_report(paths, &mut out).unwrap();
        (fine, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_fine_definition_is_summed_up_in_a_line() {
        let (fine, text) = checked(&["sagas/order.yaml".into()]);
        let expected =
            "sagas/order.yaml: order v1, 3 steps: reserve_stock -> charge_payment -> ship (pivot)\n";
        assert_eq!((fine, text.as_str()), (true, expected));
    }

    #[test]
    fn problems_of_all_files_are_shown_and_fail_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        fs::create_dir(folder.path().join("deeper")).unwrap();
        file("a.yaml", ORDER);
        file("deeper/b.yml", ORDER);
        file("c.yaml", "saga: c\nversoin: 1\n");
        file("d.test.yaml", "not a definition");
        file(".hidden.yaml", "not a definition");
        let (fine, text) = checked(&[folder.path().into(), "nowhere".into()]);
        assert!(!fine);
        assert!(text.contains("a.yaml: order v1"), "{text}");
        assert!(text.contains("order v1 is already defined in"), "{text}");
        assert!(text.contains("c.yaml:2:1\n  |\n2 | versoin: 1\n  | ^^^^^^^\n"), "{text}");
        assert!(text.contains("did you mean `version`?"), "{text}");
        assert!(text.contains("cannot be read"), "{text}");
        assert_eq!(text.matches("error: ").count(), 3, "{text}");
    }

    #[test]
    fn a_folder_without_definitions_fails_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let (fine, text) = checked(&[folder.path().into()]);
        assert!(!fine && text.contains("there is no saga definition"), "{text}");
    }
}
