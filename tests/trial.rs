//! `sagamq test`, as its users have it: the sagas of this project are green, and what is wrong with a
//! definition or differs from a scenario is told.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use sagamq::definitions::Loaded;
use sagamq::saga::compile;
use sagamq::trial::{self, Selection};
use serde_json::Value;
use tempfile::TempDir;

const ORDER: &str = include_str!("../sagas/order.yaml");
const ORDER_TEST: &str = include_str!("../sagas/order.test.yaml");

/// Runs `sagamq test` and returns its exit code and what it printed.
fn test(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sagamq"));
    let Output { status, stdout, stderr } = command.arg("test").args(arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&stderr), "");
    (status.code(), String::from_utf8(stdout).unwrap())
}

fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, text) = test(&[arguments, &["--json"]].concat());
    (code, serde_json::from_str(&text).unwrap())
}

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|(name, text)| fs::write(folder.path().join(name), text).unwrap());
    let path = folder.path().to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn every_path_and_every_scenario_of_the_sagas_holds() {
    let (code, outcome) = json(&["sagas"]);
    assert_eq!((code, &outcome["passed"]), (Some(0), &Value::Bool(true)), "{outcome:#}");
    let definitions = outcome["definitions"].as_array().unwrap();
    for definition in definitions {
        let name = &definition["saga"];
        // Each starts as its own scenarios do, comes to every end, and leaves nothing to warn of.
        assert!(definition["start"].as_str().unwrap().ends_with(".test.yaml"), "{name}");
        for end in ["completed", "compensated", "parked"] {
            assert!(definition["ends"][end].as_u64().unwrap() > 10, "{name}: {}", definition["ends"]);
        }
        for odd in ["never_begun", "never_undone", "gaps", "obstacles", "failures"] {
            assert_eq!(definition[odd], Value::Array(Vec::new()), "{name}: {odd}");
        }
        let tested = outcome["scenarios"].as_array().unwrap().iter();
        let tested = tested.filter(|tested| tested["scenario"]["file"] == definition["start"]);
        assert!(tested.count() >= 5, "{name} has too few scenarios");
    }
    assert!(definitions.len() >= 2 && outcome["paths"].as_u64().unwrap() > 5_000, "{}", outcome["paths"]);
}

#[test]
fn the_table_tells_what_befalls_each_command_and_how_that_ends() {
    let (code, text) = test(&["sagas/order.yaml", "--no-pairs"]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "sagas/order.yaml: order v1, started by the event of sagas/order.test.yaml",
        "ship                 completed    success, timeout, late reply, ",
        "compensated  failure, unroutable",
        "parked       silence, retries used up",
        "undo reserve_stock   compensated  success, ",
        "ok      a declined payment gives the stock back",
        "passed: 70 paths in ",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
}

#[test]
fn of_too_many_pairs_a_sample_is_played_and_the_rest_is_counted() {
    let tried = |arguments: &[&str]| {
        let (code, outcome) = json(&[&["sagas/order.yaml"], arguments].concat());
        assert_eq!(code, Some(0), "{outcome:#}");
        let of = outcome["definitions"][0].clone();
        (of["paths"].as_u64().unwrap(), of["pairs_left_out"].as_u64().unwrap(), of["pairs"].clone())
    };
    let (sample, left_out, pairs) = tried(&["--pairs", "200"]);
    // Those with one fault are all played, and not every pair is possible.
    assert!((170..300).contains(&sample) && left_out > 1_000, "{sample} {left_out}");
    assert_eq!(tried(&["--pairs", "200"]), (sample, left_out, pairs));
    assert_eq!((tried(&["--no-pairs"]).0, tried(&["--no-pairs"]).1), (70, 0));
    // What is asked for by name is played, all of it.
    let named = ["--filter", "ship: failure + undo reserve_stock"];
    assert_eq!(tried(&[&named[..], &["--pairs", "1"]].concat()), tried(&named));
    let (_, text) = test(&["sagas/order.yaml", "--pairs", "200"]);
    let line = format!("  {left_out} pairs were not played, only a sample of them: `--pairs` ");
    assert!(text.contains(&line), "{line:?} is not in {text}");
}

#[test]
fn how_far_it_is_is_told_up_to_the_end() {
    let plan = Arc::new(compile::load("order.yaml", ORDER).unwrap());
    let loaded = Loaded { file: "order.yaml".to_owned(), source: ORDER.to_owned(), plan };
    let selection = Selection { paths: true, pairs: Some(0), filter: None, time_lines: false };
    let told = Mutex::new(Vec::new());
    let progress =
        |saga: &str, looked_at, paths| told.lock().unwrap().push((saga.to_owned(), looked_at, paths));
    let outcome = trial::run(&[loaded], &[], selection, &progress).unwrap();
    let mut told = told.into_inner().unwrap();
    told.sort();
    let paths = outcome.paths();
    let each: Vec<_> = (1..=paths).map(|looked_at| ("order".to_owned(), looked_at, paths)).collect();
    assert_eq!(told, each);
}

#[test]
fn a_scenario_that_comes_otherwise_is_told_with_its_time_line() {
    let wrong = ORDER_TEST.replacen("error: PAYMENT_DECLINED", "error: NO_MONEY", 1).replacen(
        "{compensate: reserve_stock, body: {reservation_id: R-1}}",
        "ship",
        1,
    );
    let (_folder, path) = folder(&[("order.yaml", ORDER), ("order.test.yaml", &wrong)]);
    let (code, text) = test(&[&path, "--scenarios-only"]);
    assert_eq!(code, Some(1), "{text}");
    let told = "\
    error
      expected  NO_MONEY
      came      PAYMENT_DECLINED
    commands
      expected  reserve_stock, charge_payment, ship
      came      reserve_stock, charge_payment, undo reserve_stock
";
    assert!(text.contains(told), "{text}");
    for line in [
        "  FAILED  a declined payment gives the stock back (line ",
        "+0.000s  <- event order.placed on orders: ",
        "+0.010s  -> charge_payment: payment.charge on payments ",
        "+0.020s     charge_payment: failed: ",
        "+0.030s     nothing more is to be undone",
        "NOT PASSED: 13 scenarios, 1 of them failed",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
}

/// The last step is tried without end, and its deadline parks it: nothing ever undoes it.
const NEVER_UNDONE: &str = "\
saga: forgetful
version: 1
start: {on: {exchange: shop, key: sale}, business_key: =event.data.id}
deadline: {after: 1h, then: park}
steps:
  - step: reserve
    command: {exchange: shop, key: reserve}
    compensate: {command: {exchange: shop, key: release}}
  - step: deliver
    command: {exchange: shop, key: deliver}
    retry: {attempts: unlimited}
    compensate: {command: {exchange: shop, key: fetch_back}}
";

#[test]
fn a_step_that_no_path_undoes_is_a_warning() {
    let (_folder, path) = folder(&[("forgetful.yaml", NEVER_UNDONE)]);
    let (code, text) = test(&[&path]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("started by a made-up event"), "{text}");
    assert_eq!(text.matches("warning: ").count(), 1, "{text}");
    assert!(text.contains("  warning: step deliver is undone on no path\n"), "{text}");
}

#[test]
fn what_cannot_be_evaluated_on_a_path_is_a_warning_with_that_path() {
    let body = "body: {parcel: '=steps.reserve.output.parcel + 1'}";
    let text = NEVER_UNDONE.replace("key: release}", &format!("key: release, {body}}}")).replacen(
        "    compensate:",
        "    output: {parcel: =reply.data.parcel}\n    compensate:",
        1,
    );
    let (_folder, path) = folder(&[("forgetful.yaml", &text)]);
    let (code, text) = test(&[&path, "--no-pairs"]);
    assert_eq!(code, Some(0), "{text}");
    // The parcel is not known where the answer was lost.
    let warning = "warning: undo reserve: the command cannot be made: add does not work on null and int";
    assert!(text.contains(warning), "{text}");
    assert!(text.contains("the first: reserve: timeout)"), "{text}");
}

/// A saga that waits to hear that nobody objects, and then for a time that its start names.
const OBJECTION: &str = "\
saga: objection
version: 1
start: {on: {exchange: ex, key: started}, business_key: =event.data.id}
deadline: {after: 60d}
steps:
  - {step: a, command: {exchange: ex, key: do.a}, compensate: {command: {exchange: ex, key: undo.a}}}
  - wait: objections
    events: [{on: {exchange: ev, key: objected}, outcome: failure, error: OBJECTED}]
    timeout: 3d
    on_timeout: continue
  - {delay: rest, until: =input.time}
  - {step: b, command: {exchange: ex, key: do.b}, compensate: none}
";

#[test]
fn where_no_event_means_success_silence_does() {
    let (_folder, path) = folder(&[("objection.yaml", OBJECTION)]);
    let (code, text) = test(&[&path]);
    assert_eq!(code, Some(0), "{text}");
    for line in ["objections           completed    success, timeout", "compensated  failure"] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&text).contains(&squeezed(line)), "{line:?} is not in {text}");
    }
}

#[test]
fn a_deadline_may_be_months_away_or_an_hour_and_made_up_times_come_before_it() {
    let short = OBJECTION.replace("after: 60d", "after: 1h").replace("timeout: 3d", "timeout: 10m");
    for definition in [OBJECTION, &short] {
        let (_folder, path) = folder(&[("objection.yaml", definition)]);
        let (code, outcome) = json(&[&path, "--no-pairs"]);
        assert_eq!((code, &outcome["passed"]), (Some(0), &Value::Bool(true)), "{outcome:#}");
        let definition = &outcome["definitions"][0];
        assert_eq!(definition["never_begun"], Value::Array(Vec::new()), "{outcome:#}");
        assert!(definition["ends"]["completed"].as_u64().unwrap() > 10, "{outcome:#}");
    }
}

#[test]
fn what_no_made_up_event_can_satisfy_asks_for_a_scenario() {
    let text = NEVER_UNDONE.replacen("key: reserve}", "key: reserve, body: '=input.codes[3].parts[0]'}", 1);
    let (folder, path) = folder(&[("forgetful.yaml", &text)]);
    let (code, said) = test(&[&path, "--no-pairs"]);
    // No path gets beyond it.
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("  FAILED  no path completes\n"), "{said}");
    assert!(said.contains("warning: body of the command reserve: "), "{said}");
    assert!(said.contains("write a scenario with the event or the reply that it needs"), "{said}");
    let scenario = "\
saga: forgetful
start: {data: {id: S-1, codes: [a, b, c, {parts: [d]}]}}
scenarios:
  - {scenario: sold, commands: [reserve, deliver], end: completed}
";
    fs::write(folder.path().join("forgetful.test.yaml"), scenario).unwrap();
    let (code, said) = test(&[&path, "--no-pairs"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("cannot") && !said.contains("write a scenario"), "{said}");
}

#[test]
fn a_scenario_file_with_a_mistake_is_refused_with_its_place() {
    let rows = [
        (ORDER_TEST.replacen("end: completed", "end: complete", 1), "did you mean `completed`?"),
        (ORDER_TEST.replacen("[reserve_stock]", "[reserve_stok]", 1), "did you mean `reserve_stock`?"),
        (ORDER_TEST.replacen("saga: order", "saga: ordre", 1), "did you mean `order`?"),
        ("scenarios: [".to_owned(), "order.test.yaml:1:"),
    ];
    for (source, said) in rows {
        let (_folder, path) = folder(&[("order.yaml", ORDER), ("order.test.yaml", &source)]);
        let (code, text) = test(&[&path]);
        assert_eq!(code, Some(1), "{text}");
        assert!(text.starts_with("error[S") && text.contains(said), "{text}");
        assert!(text.contains("order.test.yaml:"), "{text}");
        let (code, told) = json(&[&path]);
        assert_eq!((code, told["problems"].as_array().map(Vec::len)), (Some(1), Some(1)), "{told}");
    }
}

#[test]
fn a_start_event_of_a_scenario_comes_in_as_it_is_written() {
    let text = NEVER_UNDONE.replacen("key: reserve}", "key: reserve, body: {size: =input.size}}", 1);
    let scenarios = "\
saga: forgetful
start: {data: {id: S-1}}
scenarios:
  - {scenario: without a size nothing is reserved, commands: [], end: compensated, error: BAD_EXPRESSION}
  - scenario: with one it is
    start: {data: {id: S-1, size: 3}}
    commands: [{step: reserve, body: {size: 3}}, deliver]
    end: completed
  - scenario: what is not written is made up
    start: {headers: {region: eu}}
    commands: [{step: reserve, body: {size: size}}, deliver]
    end: completed
";
    let (folder, path) = folder(&[("forgetful.yaml", &text), ("forgetful.test.yaml", scenarios)]);
    let (code, said) = test(&[&path, "--scenarios-only"]);
    assert_eq!(code, Some(0), "{said}");
    // Paths want an event that goes through.
    let (_, outcome) = json(&[&path, "--no-pairs"]);
    assert!(outcome["definitions"][0]["ends"]["completed"].as_u64().unwrap() > 5, "{outcome:#}");
    // Without its key it finds no instance, and that is all there is to say.
    fs::write(folder.path().join("forgetful.test.yaml"), scenarios.replacen("id: S-1", "size: 3", 1))
        .unwrap();
    let (code, said) = test(&[&path, "--scenarios-only"]);
    assert_eq!(code, Some(1), "{said}");
    let letter = "    a message of events was dead-lettered: saga forgetful: business_key: event.data.id: ";
    assert_eq!((said.matches(letter).count(), said.contains("of the start: ")), (1, false), "{said}");
}

#[test]
fn an_event_that_nobody_takes_is_told_with_its_place() {
    let cancelled = "data: {order_id: A-1}, during: charge_payment}";
    let rows = [
        ("data: {order_id: A-2}, during: charge_payment}", "it names \"A-2\": in its data, name \"A-1\""),
        ("data: {order_id: A-1}, during: ship}", "ship never came, and the event waits for it: name a step"),
    ];
    let line = ORDER_TEST.lines().position(|line| line.contains(cancelled)).unwrap() + 1;
    for (event, why) in rows {
        let source = ORDER_TEST.replacen(cancelled, event, 1);
        let source = match event.contains("A-1") {
            // Only then is it the event, and nothing else, that ends otherwise.
            true => source.replace(
                "charge_payment: {data: {order_id: A-1, status: SUCCESS",
                "charge_payment: {data: {order_id: A-1, status: FAILED",
            ),
            false => source,
        };
        let (_folder, path) = folder(&[("order.yaml", ORDER), ("order.test.yaml", &source)]);
        let (code, text) = test(&[&path, "--scenarios-only"]);
        let told =
            format!("order.test.yaml:{line}:20: nobody took the event order.cancelled on orders: {why}");
        assert_eq!((code, text.contains(&told)), (Some(1), true), "{told:?} is not in {text}");
    }
}

/// Books rooms for whoever calls it.
const BOOKING: &str = "\
saga: booking
version: 1
start: {on: {exchange: rooms, key: wanted}, business_key: =event.data.id}
steps:
  - step: hold
    command: {exchange: rooms, key: hold, body: {nights: '=input.nights * 2'}}
    replies: [{on: {exchange: rooms, key: held}, outcome: success}]
    output: {price: =reply.data.price}
    compensate: {command: {exchange: rooms, key: drop}}
  - wait: keys
    on: {exchange: rooms, key: keys.handed_over}
    timeout: 1h
output: {price: =steps.hold.output.price}
";

const HOLIDAY: &str = "\
saga: holiday
version: 1
start: {on: {exchange: shop, key: holiday}, business_key: =event.data.id}
steps:
  - step: reserve
    command: {exchange: shop, key: reserve}
    compensate: {command: {exchange: shop, key: release}}
  - call: book
    saga: booking
    input: {nights: =input.nights}
  - step: pay
    kind: pivot
    command: {exchange: shop, key: pay, body: {price: =steps.book.output.price}}
";

const HOLIDAY_TEST: &str = "\
saga: holiday
scenarios:
  - {scenario: all is booked, commands: [reserve, {step: pay, body: {price: price}}], end: completed}
  - scenario: there is no room
    replies: {book: failure}
    commands: [reserve, {compensate: reserve}]
    end: compensated
";

#[test]
fn a_saga_that_is_called_is_played_along() {
    let files = [("booking.yaml", BOOKING), ("holiday.yaml", HOLIDAY), ("holiday.test.yaml", HOLIDAY_TEST)];
    let (_folder, path) = folder(&files);
    let (code, outcome) = json(&[&path]);
    assert_eq!(code, Some(0), "{outcome:#}");
    let ends = |path: &str| {
        let all =
            outcome["definitions"].as_array().unwrap().iter().flat_map(|of| of["alone"].as_array().unwrap());
        all.filter(|walked| walked["path"] == path).map(|walked| walked["end"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ends("book: success"), ["completed"]);
    assert_eq!(ends("book: failure"), ["compensated"]);
    assert_eq!(ends("keys: early reply"), ["completed"]);
    for definition in outcome["definitions"].as_array().unwrap() {
        for odd in ["never_begun", "never_undone", "gaps", "obstacles"] {
            assert_eq!(definition[odd], Value::Array(Vec::new()), "{}: {odd}", definition["saga"]);
        }
    }
    assert!(outcome["scenarios"].as_array().unwrap().iter().all(|scenario| scenario["passed"] == true));
}

/// Waits in every way that there is, with a deadline over all of it.
const LATE: &str = "\
saga: late
version: 1
start: {on: {exchange: shop, key: late}, business_key: =event.data.id}
deadline: {after: 1h}
steps:
  - step: reserve
    command: {exchange: shop, key: reserve}
    compensate: {command: {exchange: shop, key: release}}
  - {wait: word, on: {exchange: shop, key: word}, timeout: 10m}
  - {delay: rest, for: 5m}
  - {emit: tell, event: {exchange: shop, key: told}}
  - {call: wrap, saga: wrapping, input: {present: 1}}
  - foreach: each
    items: =input.list
    as: item
    max_in_flight: 1
    steps:
      - {delay: nap, for: 1m}
      - {step: buy, command: {exchange: shop, key: buy}, compensate: {command: {exchange: shop, key: give_back}}}
      - {wait: nod, on: {exchange: shop, key: nod}, business_key: =event.data.item, timeout: 3m}
      - {call: wrap_it, saga: wrapping, input: {present: 2}}
  - {step: pay, kind: pivot, command: {exchange: shop, key: pay}}
  - {delay: sleep, for: 1d}
  - {wait: thanks, on: {exchange: shop, key: thanks}, timeout: 2d, on_timeout: continue}
";

#[test]
fn the_deadline_passes_wherever_a_saga_can_wait() {
    let before = [
        "reserve",
        "word",
        "rest",
        "tell",
        "wrap",
        "each",
        "each/nap",
        "each/buy",
        "each/nod",
        "each/wrap_it",
    ];
    let parks = LATE.replace("{after: 1h}", "{after: 1h, then: park}");
    for (definition, end) in [(LATE, "compensated"), (&parks, "parked")] {
        let (_folder, path) = folder(&[("late.yaml", definition), ("wrapping.yaml", WRAPPING)]);
        let (code, outcome) = json(&[&path, "--no-pairs", "--filter", "deadline", "--time-lines"]);
        assert_eq!(code, Some(0), "{outcome:#}");
        let told = outcome["definitions"][0]["time_lines"].as_array().unwrap();
        let ends = before.map(|step| (step, end));
        // After the pivot it is told, and changes nothing.
        for (step, end) in ends.into_iter().chain([("sleep", "completed"), ("thanks", "completed")]) {
            let path = told.iter().find(|told| told["path"] == format!("{step}: deadline")).unwrap();
            let line = path["time_line"].to_string();
            let passed = line.contains("deadline_passed");
            assert_eq!((passed, path["end"].as_str()), (true, Some(end)), "{step}: {path:#}");
        }
    }
}

/// Sends a present to each guest; what the items look like is told by expressions alone.
const PARTY: &str = "\
saga: party
version: 1
start: {on: {exchange: shop, key: party}, business_key: =event.data.id}
steps:
  - foreach: presents
    items: =input.guests
    as: guest
    with: {budget: =input.budget}
    max_in_flight: 1
    steps:
      - step: buy
        when: =input.guest.invited
        command: {exchange: shop, key: buy, body: {grams: '=input.guest.weight * 2', cents: '=input.budget - 1'}}
        output: {present: =reply.data.present}
        compensate: {command: {exchange: shop, key: give_back, body: {present: =steps.buy.output.present}}}
      - call: wrap
        saga: wrapping
        input: {present: =steps.buy.output.present}
    output: {present: =steps.buy.output.present}
  - step: bill
    kind: pivot
    command: {exchange: shop, key: bill, body: {presents: '=size(steps.presents.output)'}}
";

/// No event starts it.
const WRAPPING: &str = "\
saga: wrapping
version: 1
steps:
  - step: wrap
    command: {exchange: shop, key: wrap, body: {present: =input.present}}
    compensate: {command: {exchange: shop, key: unwrap}}
";

const PARTY_TEST: &str = "\
saga: party
start: {data: {id: P-1, budget: 9, guests: [{weight: 1, invited: true}, {weight: 2, invited: false}]}}
replies: {presents/0/buy: {data: {present: book}}}
scenarios:
  - scenario: who is invited gets a present
    commands: [{step: presents/0/buy, body: {grams: 2, cents: 8}}, {step: bill, body: {presents: 2}}]
    outputs: {presents: [{present: book}, {present: null}]}
    end: completed
  - scenario: a present that cannot be wrapped is given back
    replies: {presents/0/wrap: failure}
    commands: [presents/buy, {compensate: presents/0/buy, body: {present: book}}]
    end: compensated
";

#[test]
fn what_is_done_for_each_item_is_played_with_made_up_items() {
    let (_folder, path) = folder(&[("party.yaml", PARTY), ("wrapping.yaml", WRAPPING)]);
    let (code, outcome) = json(&[&path]);
    assert_eq!(code, Some(0), "{outcome:#}");
    let definitions = outcome["definitions"].as_array().unwrap();
    let end = |path: &str| {
        let mut all = definitions[0]["alone"].as_array().unwrap().iter();
        all.find(|walked| walked["path"] == path).map(|walked| walked["end"].as_str().unwrap().to_owned())
    };
    for (path, ended) in [
        ("presents/buy: success", "completed"),
        ("presents/buy: skipped", "completed"),
        ("presents/buy: failure", "compensated"),
        ("presents/wrap: failure", "compensated"),
        ("undo presents/buy: late reply (after bill: failure)", "compensated"),
        ("undo presents/buy: silence (after bill: failure)", "parked"),
    ] {
        assert_eq!(end(path).as_deref(), Some(ended), "{path} in {:#}", definitions[0]["alone"]);
    }
    for odd in ["never_begun", "never_undone", "gaps", "obstacles"] {
        assert_eq!(definitions[0][odd], Value::Array(Vec::new()), "{odd}");
    }
    assert_eq!((&definitions[1]["saga"], &definitions[1]["paths"]), (&"wrapping".into(), &0.into()));
    let (_, text) = test(&[&path, "--no-pairs"]);
    assert!(text.contains("wrapping v1, which no event starts: it is played where others call it"), "{text}");
}

#[test]
fn scenarios_name_the_steps_of_all_items_or_of_one() {
    let files = [("party.yaml", PARTY), ("wrapping.yaml", WRAPPING), ("party.test.yaml", PARTY_TEST)];
    let (_folder, path) = folder(&files);
    let (code, text) = test(&[&path, "--scenarios-only"]);
    assert_eq!(code, Some(0), "{text}");
    let rows = [
        ("{step: presents/0/buy,", "{step: presents/0/by,", "did you mean `presents/buy`?"),
        ("[presents/buy,", "[buy,", "unknown step \"buy\""),
        ("{presents: [", "{presents/buy: [", "unknown step \"presents/buy\""),
        ("compensate: presents/0/buy", "compensate: presents/0/wrap", "no command undoes step"),
        ("saga: party", "saga: wrapping", "no event starts saga \"wrapping\""),
        ("{step: presents/0/buy,", "{step: presents/1/buy,", "came      presents/0/buy, bill"),
        ("[presents/buy,", "[presents/0/buy, bill,", "came      presents/0/buy, undo presents/0/buy"),
    ];
    for (from, to, said) in rows {
        let wrong = PARTY_TEST.replacen(from, to, 1);
        let (_folder, path) = folder(&[files[0], files[1], ("party.test.yaml", &wrong)]);
        let (code, text) = test(&[&path, "--scenarios-only"]);
        assert_eq!((code, text.contains(said)), (Some(1), true), "{said:?} is not in {text}");
    }
}

#[test]
fn as_many_attempts_as_are_allowed_are_played_to_their_end() {
    let patient = "\
saga: patient
version: 1
start: {on: {exchange: in, key: go}, business_key: =event.data.id}
steps:
  - step: call
    command: {exchange: p, key: call}
    timeout: 1s
    retry: {attempts: 300, initial: 1s, max: 1h, jitter: none}
    compensate: none
";
    let busy = "\
saga: patient
start: {data: {id: A}}
scenarios:
  - {scenario: busy, replies: {call: retry}, commands: [{step: call, attempts: 300}], end: compensated}
";
    let (_folder, path) = folder(&[("patient.yaml", patient), ("patient.test.yaml", busy)]);
    let (code, text) = test(&[&path, "--scenarios-only"]);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn an_answer_of_somebody_who_is_not_named_is_told_as_a_dead_letter() {
    let guarded = "\
saga: guarded
version: 1
start: {on: {exchange: in, key: go}, business_key: =event.data.id, from_user: shop}
steps:
  - step: charge
    kind: pivot
    command: {exchange: p, key: charge}
    timeout: 1s
    on_timeout: park
    from_user: payments
";
    let scenarios = "\
saga: guarded
scenarios:
  - {scenario: paid, end: completed}
  - {scenario: forged, replies: {charge: {user: mallory}}, end: parked}
";
    let (_folder, path) = folder(&[("guarded.yaml", guarded), ("guarded.test.yaml", scenarios)]);
    let (code, text) = test(&[&path]);
    let reason =
        "a message of replies was dead-lettered: answer to step \"charge\": it comes from user \"mallory\"";
    assert!(code == Some(1) && text.contains(reason), "{text}");
    assert!(text.contains("12 paths") && text.contains("2 scenarios, 1 of them failed"), "{text}");
}
