//! `sagamq test`: what definitions do on every path, and in a team's own scenarios.

use std::fmt::Write;
use std::io::IsTerminal;
use std::mem;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::args::TestArgs;
use super::error::{CliError, Exit};
use super::output::{self, plain, table};
use super::show;
use crate::definitions::{self, Loaded};
use crate::saga::instance::Status;
use crate::saga::problem::Problem;
use crate::trial::{
    self, Explored, Fault, Happened, Moment, Outcome, Rehearsed, ScenarioFile, Selection, Target, TimeLine,
    Tried, Walked, targets,
};

/// The ends of a path, in the order in which they are told. One that is still under way has not ended.
const ENDS: [Status; 5] =
    [Status::Completed, Status::Compensated, Status::Parked, Status::Running, Status::Compensating];

/// Columns of a table that goes to no terminal.
const WIDTH: u16 = 112;

/// Plays definitions and scenarios under the paths, and prints what came of it.
///
/// # Errors
/// The output cannot be written, or the orchestrator fails.
pub fn test(args: &TestArgs) -> Result<Exit, CliError> {
    let (loaded, files) = match read(args) {
        Ok(read) => read,
        Err(problems) => {
            let text = match args.json {
                true => {
                    document(&json!({"problems": problems.iter().map(Problem::to_json).collect::<Vec<_>>()}))
                }
                false => problems.iter().map(|problem| format!("{problem}\n\n")).collect(),
            };
            output::print(&text)?;
            return Ok(Exit::Failed);
        }
    };
    let selection = Selection {
        paths: !args.scenarios_only,
        pairs: if args.no_pairs { Some(0) } else { args.pairs },
        filter: args.filter.as_deref(),
        time_lines: args.time_lines,
    };
    // Hidden where there is no terminal.
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} paths, {elapsed}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let outcome = trial::run(&loaded, &files, selection, &|saga, looked_at, paths| {
        bar.set_length(u64::try_from(paths).unwrap_or(u64::MAX));
        bar.set_position(u64::try_from(looked_at).unwrap_or(u64::MAX));
        bar.set_message(saga.to_owned());
    });
    bar.finish_and_clear();
    let outcome = outcome?;
    let warnings = definitions::warnings(&loaded);
    let text = match args.json {
        true => document(&as_json(&outcome, &warnings)),
        false => {
            let told: String = warnings.iter().map(|warning| format!("{warning}\n\n")).collect();
            told + &report(&outcome, args.time_lines)
        }
    };
    output::print(&text)?;
    // Where nothing was played, nothing is shown.
    let played = outcome.paths() + outcome.scenarios.len() > 0;
    Ok(if outcome.passed() && played { Exit::Fine } else { Exit::Failed })
}

fn read(args: &TestArgs) -> Result<(Vec<Loaded>, Vec<ScenarioFile>), Vec<Problem>> {
    let tests = definitions::tests(&args.paths)?;
    let (loaded, mut problems) = definitions::load_paths(&tests.definitions);
    let mut files = Vec::new();
    for (file, source) in &tests.scenarios {
        match ScenarioFile::parse(file, source) {
            Ok(file) => files.push(file),
            Err(problem) => problems.push(*problem),
        }
    }
    if problems.is_empty() {
        problems = trial::problems(&loaded, &files);
    }
    if problems.is_empty() { Ok((loaded, files)) } else { Err(problems) }
}

fn document(value: &Value) -> String {
    format!("{value:#}\n")
}

fn report(outcome: &Outcome, time_lines: bool) -> String {
    let is_told =
        |tried: &&Tried| tried.is_whole || tried.explored.paths() > 0 || tried.loaded.plan.start.is_none();
    let played = outcome.definitions.iter().filter(is_told);
    let mut text: String = played.map(definition).collect();
    for scenarios in outcome.scenarios.chunk_by(|one, next| one.file == next.file) {
        line(&mut text, &format!("{}: {}", scenarios[0].file, count(scenarios.len(), "scenario")));
        scenarios.iter().for_each(|scenario| text.push_str(&rehearsed(scenario, time_lines)));
        line(&mut text, "");
    }
    line(&mut text, &verdict(outcome));
    text
}

/// A definition: which command ends how by what, and what is odd.
fn definition(tried: &Tried) -> String {
    let Tried { loaded, start, gaps, explored, .. } = tried;
    let (plan, mut text) = (&loaded.plan, String::new());
    if plan.start.is_none() {
        let how = "which no event starts: it is played where others call it";
        line(&mut text, &format!("{}: {} v{}, {how}", loaded.file, plan.saga, plan.version));
        line(&mut text, "");
        return text;
    }
    let from = start.as_deref().map_or("a made-up event".to_owned(), |file| format!("the event of {file}"));
    line(&mut text, &format!("{}: {} v{}, started by {from}", loaded.file, plan.saga, plan.version));
    let width = (!std::io::stdout().is_terminal()).then_some(WIDTH);
    let headings = ["step", "end", "if this befalls it", "in pairs"];
    let columns = if explored.pairs > 0 { 4 } else { 3 };
    let mut rows = table(&headings[..columns], width);
    for target in targets(plan) {
        let mut name = target.name(plan);
        for end in ENDS {
            let faults = ending(explored, target, end);
            let pairs = explored.in_pairs.get(&(target, end)).copied().unwrap_or_default();
            if !faults.is_empty() || pairs > 0 {
                let pairs = if pairs > 0 { pairs.to_string() } else { String::new() };
                let row = [mem::take(&mut name), end_name(end).to_owned(), faults.join(", "), pairs];
                rows.add_row(row.into_iter().take(columns));
            }
        }
    }
    rows.lines().for_each(|row| line(&mut text, &format!("  {row}")));
    let ends =
        ENDS.into_iter().filter_map(|end| Some(format!("{} {}", explored.ends.get(&end)?, end_name(end))));
    line(
        &mut text,
        &format!("  {}: {}", count(explored.paths(), "path"), ends.collect::<Vec<_>>().join(", ")),
    );
    if explored.left_out > 0 {
        let how = "`--pairs` with a larger number plays more, and `--filter` all that it names";
        line(
            &mut text,
            &format!("  {} pairs were not played, only a sample of them: {how}", explored.left_out),
        );
    }
    for warning in warnings(tried) {
        line(&mut text, &format!("  warning: {warning}"));
    }
    for gap in gaps {
        line(
            &mut text,
            &format!("  warning: {gap}; write a scenario with the event or the reply that it needs"),
        );
    }
    if tried.is_dead_end() {
        line(&mut text, "  FAILED  no path completes");
    }
    for told in explored.told.iter().chain(&explored.failures) {
        let verdict = if told.wrong.is_empty() { "ok      " } else { "FAILED  " };
        line(&mut text, &format!("  {verdict}{}: {}", told.path, end_name(told.end)));
        told.wrong.iter().for_each(|wrong| line(&mut text, &format!("    {wrong}")));
        text.push_str(&time_line(&told.time_line));
    }
    if explored.failed > explored.failures.len() {
        line(&mut text, &format!("  and {} more", explored.failed - explored.failures.len()));
    }
    line(&mut text, "");
    text
}

/// What leads to an end where it befalls a command, and nothing else goes wrong.
fn ending(explored: &Explored, target: Target, end: Status) -> Vec<&'static str> {
    let walked =
        explored.alone.iter().filter(|walked| walked.end == end && walked.path.faults[0].0 == target);
    let fault = |walked: &Walked| walked.path.faults[0].1;
    // What is not even sent has no fault, but for a step that is skipped.
    let befallen = walked.filter(|walked| walked.reached || fault(walked) == Fault::Skipped);
    befallen.map(|walked| fault(walked).as_str()).collect()
}

fn end_name(end: Status) -> &'static str {
    match end {
        Status::Running | Status::Compensating => "not ended",
        end => end.as_str(),
    }
}

fn warnings(tried: &Tried) -> Vec<String> {
    let never = |steps: Vec<String>, what: &str| {
        steps.into_iter().map(|step| format!("step {step} is {what} on no path")).collect::<Vec<_>>()
    };
    let obstacle = |(what, path, paths): &(String, String, usize)| {
        format!("{what} ({}, the first: {path})", count(*paths, "path"))
    };
    let mut warnings = never(tried.never_begun(), "begun");
    warnings.extend(never(tried.never_undone(), "undone"));
    warnings.extend(tried.explored.obstacles.iter().map(obstacle));
    warnings
}

fn rehearsed(rehearsed: &Rehearsed, time_lines: bool) -> String {
    let Rehearsed { line: number, scenario, differences, wrong, .. } = rehearsed;
    let mut text = String::new();
    match rehearsed.passed() {
        true => line(&mut text, &format!("  ok      {scenario}")),
        false => line(&mut text, &format!("  FAILED  {scenario} (line {number})")),
    }
    for difference in differences {
        line(&mut text, &format!("    {}", difference.what));
        line(&mut text, &format!("      expected  {}", difference.expected));
        line(&mut text, &format!("      came      {}", difference.came));
    }
    wrong.iter().for_each(|what| line(&mut text, &format!("    {what}")));
    if time_lines || !rehearsed.passed() {
        text.push_str(&time_line(&rehearsed.time_line));
    }
    text
}

/// What happened: `<-` came in, `->` went out, the rest was decided.
fn time_line(time_line: &TimeLine) -> String {
    let mut text = String::new();
    for Moment { at_ms, what } in &time_line.moments {
        let what = match what {
            Happened::Received(message) => format!("<- {message}"),
            Happened::Sent(message) => format!("-> {message}"),
            Happened::Fact(fact) => format!("   {}", show::sentence(fact)),
            Happened::Befell(what) => format!("!! {what}"),
        };
        line(&mut text, &format!("    {:>+11.3}s  {what}", *at_ms as f64 / 1000.0));
    }
    text
}

fn verdict(outcome: &Outcome) -> String {
    let (paths, scenarios) = (outcome.paths(), outcome.scenarios.len());
    let failed_paths: usize = outcome.definitions.iter().map(|tried| tried.explored.failed).sum();
    let failed_scenarios = outcome.scenarios.iter().filter(|scenario| !scenario.passed()).count();
    let seconds = outcome.took.as_secs_f64();
    let speed = format!(" in {seconds:.1} s, {:.0} a second", paths as f64 / seconds);
    let part = |number: usize, what: &str, more: &str, failed: usize| {
        let failed = if failed > 0 { format!(", {failed} of them failed") } else { String::new() };
        (number > 0).then(|| format!("{}{more}{failed}", count(number, what)))
    };
    let parts =
        [part(paths, "path", &speed, failed_paths), part(scenarios, "scenario", "", failed_scenarios)];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    match (parts.is_empty(), outcome.passed()) {
        (true, _) => "NOT PASSED: there was nothing to play".to_owned(),
        (false, true) => format!("passed: {}", parts.join("; ")),
        (false, false) => format!("NOT PASSED: {}", parts.join("; ")),
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// Adds a line, safe for a terminal.
fn line(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", plain(line.trim_end()));
}

fn as_json(outcome: &Outcome, warnings: &[Problem]) -> Value {
    let definitions: Vec<_> = outcome.definitions.iter().map(definition_as_json).collect();
    let scenario = |scenario: &Rehearsed| json!({"passed": scenario.passed(), "scenario": scenario});
    json!({
        "passed": outcome.passed(),
        "paths": outcome.paths(),
        "seconds": outcome.took.as_secs_f64(),
        "definitions": definitions,
        "scenarios": outcome.scenarios.iter().map(scenario).collect::<Vec<_>>(),
        "warnings": warnings.iter().map(Problem::to_json).collect::<Vec<_>>(),
        "problems": [],
    })
}

fn definition_as_json(tried: &Tried) -> Value {
    let Tried { loaded, start, gaps, explored, .. } = tried;
    let plan = &loaded.plan;
    let alone = explored.alone.iter().map(|walked| {
        let faults = walked.path.faults.iter().map(|(target, fault)| (target.name(plan), fault.as_str()));
        let (command, fault) = faults.into_iter().next().unwrap_or_default();
        json!({"path": walked.path.name(plan), "command": command, "fault": fault, "end": walked.end})
    });
    let pairs = targets(plan).into_iter().flat_map(|target| {
        ENDS.into_iter().filter_map(move |end| {
            let paths = explored.in_pairs.get(&(target, end))?;
            Some(json!({"command": target.name(plan), "end": end, "paths": paths}))
        })
    });
    let obstacle =
        |(what, path, paths): &(String, String, usize)| json!({"what": what, "path": path, "paths": paths});
    let ends =
        ENDS.into_iter().map(|end| (end.as_str().to_owned(), json!(explored.ends.get(&end).unwrap_or(&0))));
    json!({
        "file": loaded.file,
        "saga": plan.saga,
        "version": plan.version,
        "start": start,
        "paths": explored.paths(),
        "pairs_left_out": explored.left_out,
        "ends": Value::Object(ends.collect()),
        "alone": alone.collect::<Vec<_>>(),
        "pairs": pairs.collect::<Vec<_>>(),
        "never_begun": tried.never_begun(),
        "never_undone": tried.never_undone(),
        "gaps": gaps,
        "obstacles": explored.obstacles.iter().map(obstacle).collect::<Vec<_>>(),
        "failed": explored.failed,
        "failures": explored.failures,
        "time_lines": explored.told,
    })
}
