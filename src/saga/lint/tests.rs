use super::super::code::Code;
use super::super::compile::load;
use super::super::id::StoreId;
use super::super::message::Message;
use super::super::time::Timestamp;
use super::super::transition;

/// Line 1 is `saga: s`, a step stands on each of the lines 8 to 10.
const BASE: &str = "\
saga: s
version: 1
start: {on: {exchange: in, key: a.b}, business_key: =event.data.id}
attributes: {customer: =input.customer}
deadline: {after: 10m}
retry: {some: {attempts: 3}}
steps:
  - {step: one, command: {exchange: out, key: one}, compensate: {command: {exchange: out, key: undo}}}
  - {step: two, kind: pivot, command: {exchange: out, key: two}, retry: some}
  - {step: three, kind: retriable, command: {exchange: out, key: three}}
on_completed: {emit: {exchange: out, key: done}}
";

const COMPENSATE: &str = ", compensate: {command: {exchange: out, key: undo}}";
const DEADLINE: &str = "deadline: {after: 10m}\nretry: {some: {attempts: 3}}";

#[test]
fn the_base_of_these_tests_holds() {
    load("f", BASE).unwrap();
}

/// Each row: what is replaced in the base, by what, and the one problem that comes of it.
#[test]
fn each_refusal_has_its_place_and_its_reason() {
    let long_name = format!("step: {}", "x".repeat(65));
    let long_key = format!("key: {}", "k".repeat(256));
    let rows: [(&str, &str, &str, &str); 59] = [
        // Names.
        ("saga: s", "saga: S", "1:7", "name of saga \"S\" is not snake_case"),
        ("step: one", "step: o-ne", "8:12", "name of step \"o-ne\" is not"),
        ("step: one", &long_name, "8:12", "name of step is over 64 characters"),
        ("customer: =", "Customer: =", "4:14", "name of attribute \"Customer\" is not"),
        ("some: {", "1st: {attempts: 1}, some: {", "6:9", "name of retry policy \"1st\" is not"),
        ("step: three", "step: one", "10:12", "there is another step \"one\""),
        ("version: 1", "version: 0", "2:10", "versions count from 1"),
        // What names mean where.
        ("retry: some", "retry: soem", "9:73", "unknown retry policy \"soem\""),
        ("key: two", "key: two, body: =steps.three.output", "9:71", "step \"three\" is not before"),
        ("key: two", "key: two, body: =steps.two.output", "9:71", "step \"two\" is not before"),
        ("key: two", "key: two, body: [{x: =steps.oen.output}]", "9:76", "unknown step \"oen\""),
        ("key: two", "key: two, body: =steps.one.outptu", "9:71", "there is no field \"outptu\""),
        ("key: two", "key: two, body: =steps", "9:71", "`steps` needs the name of a step"),
        ("key: two", "key: two, body: =event.data", "9:71", "`event` is not available in the body"),
        ("key: two", "key: two, body: =reply.data", "9:71", "`reply` is not available in the body"),
        ("key: two", "key: two, body: =saga.status", "9:71", "`saga.status` is not available in the body"),
        ("key: two", "key: two, body: =saga", "9:71", "`saga` as a whole is not available"),
        ("key: undo", "key: undo, body: =saga.status", "8:108", "`saga.status` is not available"),
        ("key: undo", "key: undo, body: =steps.two.output", "8:108", "step \"two\" is not before"),
        ("key: done", "key: done, body: =event.data", "11:55", "`event` is not available in an event"),
        ("kind: pivot", "kind: pivot, when: =reply.id == null", "9:36", "`reply` is not available in `when`"),
        ("=event.data.id", "=input.id", "3:53", "`input` is not available in the start"),
        ("=event.data.id", "=event.dat.id", "3:53", "there is no field \"dat\""),
        ("=input.customer", "=saga.id", "4:24", "`saga` is not available in attributes"),
        (
            "retry: some",
            "replies: [{business_key: =input.x, outcome: success}]",
            "9:91",
            "`input` is not available",
        ),
        // Expressions.
        ("=event.data.id", "=event.data.id +", "3:69", "does not parse"),
        ("=event.data.id", "\"=event.data.id + 'é' + ,\"", "3:77", "does not parse"),
        ("=event.data.id", "order", "3:53", "this key is the same for every event"),
        ("=event.data.id", "{a: 1}", "3:53", "expected an expression"),
        ("kind: pivot", "kind: pivot, when: 1", "9:36", "a condition must be true or false"),
        // The way back.
        (COMPENSATE, "", "8:12", "does not say how it is undone"),
        ("kind: pivot", "compensate: none", "10:25", "is retriable but comes before any pivot"),
        ("kind: pivot", "kind: pivot, compensate: none", "9:42", "it is never undone"),
        ("kind: retriable", "kind: retriable, compensate: none", "10:48", "it is never undone"),
        ("kind: retriable, ", "", "10:12", "comes after the pivot and cannot be undone"),
        ("kind: retriable", "kind: pivot", "10:25", "is a second pivot"),
        ("kind: pivot", "kind: pivot, on_timeout: compensate", "9:42", "no way back from its timeout"),
        (
            "kind: retriable",
            "kind: retriable, on_timeout: compensate",
            "10:48",
            "no way back from its timeout",
        ),
        // Time.
        ("attempts: 3", "attempts: 20", "9:73", "step \"two\" may take 1443s, longer than"),
        ("attempts: 3", "attempts: 0", "6:26", "attempts must be 1 to 10000"),
        ("retry: some", "limit: {}", "9:73", "a limit that says nothing"),
        ("retry: some", "limit: {in_flight: 0}", "9:85", "`in_flight` is zero"),
        ("retry: some", "limit: {per_second: 0}", "9:86", "`per_second` must be a number above 0"),
        ("retry: some", "limit: {per_second: -0.5}", "9:86", "`per_second` must be a number above 0"),
        ("retry: some", "limit: {per_second: .inf}", "9:86", "`per_second` must be a number above 0"),
        ("attempts: 3", "attempts: 3, factor: 0.5", "6:37", "the factor must be at least 1"),
        ("attempts: 3", "attempts: 3, factor: -2", "6:37", "the factor must be at least 1"),
        ("attempts: 3", "attempts: 3, initial: 0s", "6:38", "a duration of zero"),
        ("attempts: 3", "attempts: 3, initial: 2s, max: 1s", "6:47", "`max` is shorter than `initial`"),
        ("retry: some", "timeout: 11m", "9:75", "step \"two\" may take 11m, longer than"),
        ("retry: some", "timeout: 0ms", "9:75", "a duration of zero"),
        (DEADLINE, "retry: {some: {attempts: unlimited}}", "8:73", "tried without end"),
        // Topology.
        ("in, key: a.b", "out, key: '#'", "3:13", "starts on what it publishes itself: \"one\""),
        ("out, key: two", "'', key: two", "9:50", "the exchange is empty"),
        (
            "retry: some",
            "replies: [{on: {exchange: out, key: '#.two'}, outcome: success}]",
            "9:81",
            "takes for an answer what it publishes itself: \"two\"",
        ),
        (
            "deadline:",
            "cancel: {on: {exchange: out, key: done}, business_key: =event.data.id}\ndeadline:",
            "5:14",
            "is cancelled by what it publishes itself: \"done\"",
        ),
        ("key: two", "key: =input.key", "9:60", "the key cannot be an expression"),
        ("key: two", &long_key, "9:60", "the key is over 255 bytes"),
        ("retry: some", "replies: [{outcome: success, error: X}]", "9:102", "a success has no error code"),
    ];
    for (from, to, place, part) in rows {
        let problems = load("f", &BASE.replacen(from, to, 1)).expect_err(to);
        let [problem] = problems.as_slice() else { panic!("{to}: {problems:#?}") };
        assert!(problem.message.contains(part), "{problem}");
        assert_eq!(format!("{}:{}", problem.line, problem.column), place, "{problem}");
    }
}

/// Steps stand on the lines 7 to 12.
const BRANCHES: &str = "\
saga: s
version: 1
start: {on: {exchange: in, key: a}, business_key: =event.data.id}
steps:
  - parallel: both
    steps:
      - {step: one, command: {exchange: out, key: one}, compensate: none}
      - sequence: two
        steps:
          - {step: two_a, command: {exchange: out, key: two_a}, compensate: none}
          - {step: two_b, command: {exchange: out, key: two_b}, compensate: none}
  - {step: three, kind: pivot, command: {exchange: out, key: three, body: =steps.two_a.output}}
  - parallel: after
    steps:
      - {step: four, kind: retriable, command: {exchange: out, key: four}}
      - {step: five, kind: retriable, command: {exchange: out, key: five, body: =steps.one.output}}
";

#[test]
fn each_refusal_of_branches_has_its_place_and_its_reason() {
    load("f", BRANCHES).unwrap();
    let rows: [(&str, &str, &str, &str); 12] = [
        ("key: two_b", "key: two_b, body: =steps.one.output", "11:70", "step \"one\" is not before"),
        ("key: one", "key: one, body: =steps.two_a.output", "7:62", "step \"two_a\" is not before"),
        ("key: one", "key: one, body: =steps.both.output", "7:62", "unknown step \"both\""),
        ("=steps.one.output", "=steps.four.output", "16:81", "step \"four\" is not before"),
        ("parallel: both", "parallel: Both", "5:15", "name of block \"Both\" is not"),
        ("parallel: both", "parallel: one", "7:16", "there is another block \"one\""),
        ("sequence: two", "sequence: one", "8:19", "there is another step \"one\""),
        ("parallel: after", "parallel: both", "13:15", "there is another block \"both\""),
        ("key: one}, compensate: none", "key: one}, kind: pivot", "7:63", "is a pivot in a parallel block"),
        ("kind: pivot, ", "compensate: none, ", "15:28", "is retriable but comes before any pivot"),
        ("step: five, kind: retriable", "step: five", "16:16", "comes after the pivot and cannot be undone"),
        ("step: five, kind: retriable", "step: five, kind: pivot", "16:28", "is a second pivot"),
    ];
    for (from, to, place, part) in rows {
        let problems = load("f", &BRANCHES.replacen(from, to, 1)).expect_err(to);
        let problem = &problems[0];
        assert!(problem.message.contains(part), "{problem}");
        assert_eq!(format!("{}:{}", problem.line, problem.column), place, "{problem}");
    }
}

/// Forms stand on the lines 6 to 12.
const FORMS: &str = "\
saga: s
version: 1
start: {on: {exchange: in, key: a}, business_key: =event.data.id}
deadline: {after: 1d}
steps:
  - {step: one, command: {exchange: out, key: one}, compensate: none}
  - {wait: nod, on: {exchange: in, key: nod}, timeout: 1h, output: =event.data.by}
  - {emit: tell, event: {exchange: out, key: told, body: =steps.nod.output}}
  - {delay: rest, for: 1h}
  - {step: two, kind: pivot, command: {exchange: out, key: two}}
  - {delay: long, for: 9d}
  - {wait: end, on: {exchange: in, key: end}, timeout: 9d}
";

#[test]
fn each_refusal_of_waits_delays_and_events_has_its_place_and_its_reason() {
    load("f", FORMS).unwrap();
    let rows: [(&str, &str, &str, &str); 22] = [
        ("on: {exchange: in, key: nod}, ", "", "7:12", "wait \"nod\" needs one of `on` and `events`"),
        ("key: nod}", "key: nod}, events: [{on: {exchange: in, key: x}}]", "7:21", "needs one of `on` and"),
        (
            "on: {exchange: in, key: nod}",
            "events: [{on: {exchange: in, key: x}}], business_key: =event.id",
            "7:71",
            "`business_key` belongs to `on`",
        ),
        (
            "on: {exchange: in, key: nod}",
            "events: [{on: {exchange: in, key: x}, error: X}]",
            "7:62",
            "a success has no error code",
        ),
        ("key: nod", "key: ''", "7:41", "the key is empty"),
        ("=event.data.by", "=steps.one.output", "7:68", "step \"one\" is not before"),
        ("=event.data.by", "=reply.data.by", "7:68", "`reply` is not available"),
        ("timeout: 1h", "timeout: 0s", "7:56", "a duration of zero"),
        ("timeout: 1h", "timeout: 2d", "7:56", "wait \"nod\" may take 2d, longer than"),
        ("timeout: 9d", "timeout: 9d, on_timeout: compensate", "12:72", "there is no way back"),
        ("for: 1h", "until: tomorrow", "9:26", "the `until` of delay \"rest\" is no time"),
        ("for: 1h", "until: 7", "9:26", "the `until` of delay \"rest\" is no time"),
        ("for: 1h", "until: =event.data", "9:26", "`event` is not available in `until`"),
        ("for: 1h", "for: 0s", "9:24", "a duration of zero"),
        ("for: 1h", "for: 25h", "9:24", "delay \"rest\" may take 25h, longer than"),
        (", for: 1h", "", "9:13", "delay \"rest\" needs one of `for` and `until`"),
        ("for: 1h", "for: 1h, until: =input.at", "9:24", "needs one of `for` and `until`"),
        ("=steps.nod.output", "=steps.rest.output", "8:58", "step \"rest\" is not before"),
        ("key: told", "key: nod", "7:21", "the saga waits for what it publishes itself: \"nod\""),
        ("emit: tell", "emit: one", "8:12", "there is another step \"one\""),
        ("wait: nod", "wait: Nod", "7:12", "name of step \"Nod\" is not snake_case"),
        ("key: two}", "key: two}, when: =steps.nod.x", "10:72", "there is no field \"x\""),
    ];
    for (from, to, place, part) in rows {
        let mut source = FORMS.replacen(from, to, 1);
        if to == "key: nod" {
            source = source.replace("exchange: out, key: nod", "exchange: in, key: nod");
        }
        let problems = load("f", &source).expect_err(to);
        let problem = &problems[0];
        assert!(problem.message.contains(part), "{problem}");
        assert_eq!(format!("{}:{}", problem.line, problem.column), place, "{problem}");
    }
}

#[test]
fn a_block_has_steps() {
    let (head, _) = BRANCHES.split_once("  - parallel").unwrap();
    for kind in ["parallel", "sequence"] {
        let source = format!("{head}  - {kind}: both\n    steps: []\n");
        let problem = &load("f", &source).unwrap_err()[0];
        assert_eq!((problem.line, problem.message.as_str()), (6, "block \"both\" has no steps"));
    }
}

#[test]
fn branches_that_wait_for_each_other_have_a_bound() {
    let (head, _) = BRANCHES.split_once("  - parallel").unwrap();
    let block = |name: &str| {
        let step = |at: usize| {
            format!("      - {{step: {name}{at}, command: {{exchange: out, key: k}}, compensate: none}}\n")
        };
        format!("  - parallel: {name}\n    steps:\n{}", (0..400).map(step).collect::<String>())
    };
    let problems = load("f", &format!("{head}{}{}", block("a"), block("b"))).unwrap_err();
    assert_eq!(problems[0].message, "there are too many branches that wait for too many branches");
    let between = "  - {step: between, command: {exchange: out, key: k}, compensate: none}\n";
    load("f", &format!("{head}{}{between}{}", block("a"), block("b"))).unwrap();
}

#[test]
fn a_saga_has_steps() {
    let steps = BASE.find("  - {step").unwrap()..BASE.find("on_completed").unwrap();
    let mut source = BASE.to_owned();
    source.replace_range(steps, "  []\n");
    assert_eq!(load("f", &source).unwrap_err()[0].message, "a saga needs at least one step");
}

/// A list stands on the lines 6 to 8.
const ITEMS: &str = "\
saga: s
version: 1
start: {on: {exchange: in, key: a}, business_key: =event.data.id}
retry: {some: {attempts: 2}}
steps:
  - {foreach: lines,
     items: =input.lines, as: line, with: {x: =input.x}, max_items: 9, output: =steps.one.output, steps:
      [{step: one, command: {exchange: out, key: one, body: =input.line}, retry: some, compensate: none}]}
  - {step: two, command: {exchange: out, key: two, body: =steps.lines.output}, compensate: none}
";

#[test]
fn each_refusal_of_items_has_its_place_and_its_reason() {
    load("f", ITEMS).unwrap();
    let rows: [(&str, &str, &str, &str); 22] = [
        ("as: line", "as: index", "7:31", "the input of the body has \"index\" already"),
        ("with: {x:", "with: {line:", "7:44", "the input of the body has \"line\" already"),
        ("as: line, with: {x:", "with: {item:", "7:34", "the input of the body has \"item\" already"),
        ("max_items: 9", "max_items: 0", "7:69", "`max_items` must be 1 to 1000"),
        ("max_items: 9", "max_in_flight: 101", "7:73", "`max_in_flight` must be 1 to 100"),
        ("max_items: 9", "kind: pivot", "7:64", "cannot be the pivot"),
        ("max_items: 9", "kind: retriable", "7:64", "is retriable but comes before any pivot"),
        ("as: line", "as: Line", "7:31", "name of item \"Line\" is not snake_case"),
        ("=input.lines", "=event.lines", "7:13", "`event` is not available in `items`"),
        ("=input.lines", "lines", "7:13", "`items` is a string, and never a list"),
        ("=input.lines", "'={\"a\": 1}'", "7:13", "`items` is an object, and never a list"),
        ("=input.lines", "7", "7:13", "`items` is a number, and never a list"),
        ("=input.lines", "", "7:11", "`items` is null, and never a list"),
        ("body: =input.line", "body: =input.item", "8:61", "`input.item`: there is no field \"item\""),
        ("=steps.one.output", "=input.y", "7:80", "`input.y`: there is no field \"y\""),
        (
            "body: =input.line",
            "body: =has(input.lines)",
            "8:61",
            "`input.lines`: there is no field \"lines\"",
        ),
        ("=input.x", "=steps.two.output", "7:47", "step \"two\" is not before"),
        ("=steps.one.output", "=steps.two.output", "7:80", "unknown step \"two\""),
        ("retry: some", "retry: soem", "8:82", "unknown retry policy \"soem\""),
        (", compensate: none}]", "}]", "8:15", "does not say how it is undone"),
        ("retry: some, compensate: none", "kind: pivot", "8:81", "an item with a pivot could not be undone"),
        ("body: =steps.lines.output", "body: =steps.one.output", "9:58", "unknown step \"one\""),
    ];
    for (from, to, place, part) in rows {
        let problems = load("f", &ITEMS.replacen(from, to, 1)).expect_err(to);
        let problem = &problems[0];
        assert!(problem.message.contains(part), "{problem}");
        assert_eq!(format!("{}:{}", problem.line, problem.column), place, "{problem}");
    }
}

#[test]
fn the_input_of_a_body_is_the_item_its_place_and_what_is_handed_in() {
    for path in ["line.sku", "index", "x.y.z"] {
        let body = format!("body: =input.{path}}}");
        load("f", &ITEMS.replacen("body: =input.line}", &body, 1)).expect(path);
        let output = format!("output: =input.{path},");
        load("f", &ITEMS.replacen("output: =steps.one.output,", &output, 1)).expect(path);
    }
    load("f", &ITEMS.replacen("=input.lines", "'=[1, 2]'", 1)).unwrap();
}

#[test]
fn a_step_outside_of_a_body_is_told_to_be_handed_in() {
    let hint = |steps: &str, of: &str| {
        let body = format!(
            "{{step: in, command: {{exchange: out, key: in, body: =steps.{of}.output}}, compensate: none}}"
        );
        let (head, _) = ITEMS.split_once("  - {foreach").unwrap();
        let problems = load("f", &format!("{head}{}", steps.replace("BODY", &body))).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
        assert_eq!(problem.message, format!("unknown step {of:?}"));
        problem.hint.clone().unwrap_or_default()
    };
    let before = "  - {step: before, command: {exchange: out, key: before}, compensate: none}\n";
    let after = before.replace("before", "after");
    let each = "  - {foreach: lines, items: =input.lines, steps: [BODY]}\n";
    let steps = format!("{before}{each}{after}");
    let handed_in = "it is outside of the body: hand it in by `with: {before: =steps.before.output}`, and write \
                     `input.before`";
    assert_eq!(hint(&steps, "before"), handed_in);
    let within = "  - {foreach: boxes, items: =input.boxes, as: box, steps: \
                  [{foreach: lines, items: =input.box.lines, steps: [BODY]}]}\n";
    assert_eq!(hint(&format!("{before}{within}"), "before"), handed_in);
    assert_eq!(hint(&steps, "inn"), "did you mean `in`?");
    // What comes later can neither be handed in.
    assert_eq!(hint(&steps, "after"), "");
}

#[test]
fn a_body_without_steps_is_told_by_the_name_of_its_list() {
    let (head, _) = ITEMS.split_once("  - {foreach").unwrap();
    let problems =
        load("f", &format!("{head}  - {{foreach: lines, items: =input.lines, steps: []}}\n")).unwrap_err();
    let told: Vec<_> = problems.iter().map(|problem| (problem.code, problem.message.as_str())).collect();
    assert_eq!(told, [(Code::EmptyBlock, "foreach \"lines\" has no steps")]);
}

/// Each row: the exchanges, the event that starts, and the one problem with its place.
#[test]
fn what_is_listened_to_fits_the_type_of_its_exchange() {
    let loaded = |exchanges: &str, on: &str| {
        let base =
            BASE.replace("attributes: {customer: =input.customer}", &format!("exchanges: {exchanges}"));
        load("f", &base.replace("{exchange: in, key: a.b}", on))
    };
    for (exchanges, on) in [
        ("{in: {type: direct, declare: false}}", "{exchange: in, key: a.b}"),
        ("{in: {type: fanout}}", "{exchange: in}"),
        ("{in: {type: fanout}}", "{exchange: in, key: a.b}"),
        ("{in: {type: headers}}", "{exchange: in}"),
        ("{in: {type: headers}}", "{exchange: in, headers: {a: b, n: 1, f: true}, match: any}"),
        ("{in: {declare: false}, out: {type: direct}}", "{exchange: in, key: \"a.#\"}"),
        (
            "{in: {durable: false, arguments: {alternate-exchange: rest, n: 1, f: true}}, rest: {type: fanout}}",
            "{exchange: in, key: a.b}",
        ),
    ] {
        assert!(loaded(exchanges, on).is_ok(), "{exchanges} {on}: {:?}", loaded(exchanges, on).err());
    }
    for (exchanges, on, place, message) in [
        ("{}", "{exchange: in}", (3, 24), "missing field \"key\""),
        ("{in: {type: direct}}", "{exchange: in}", (3, 24), "missing field \"key\""),
        (
            "{in: {type: direct}}",
            "{exchange: in, key: \"a.*\"}",
            (3, 33),
            "exchange \"in\" is direct, and takes",
        ),
        ("{inn: {type: direct}}", "{exchange: in, key: a.b}", (4, 13), "nothing names exchange \"inn\""),
        (
            "{}",
            "{exchange: in, key: a.b, headers: {a: b}}",
            (3, 48),
            "exchange \"in\" is a topic exchange, and",
        ),
        (
            "{in: {type: headers}}",
            "{exchange: in, match: any}",
            (3, 35),
            "without `headers`, no message has any",
        ),
        (
            "{in: {type: headers}}",
            "{exchange: in, headers: {x-a: b}}",
            (3, 38),
            "header \"x-a\" begins with `x-`",
        ),
        (
            "{in: {type: headers}}",
            "{exchange: in, headers: {a: =input.a}}",
            (3, 41),
            "the broker compares headers",
        ),
        (
            "{in: {declare: false, arguments: {a: b}}}",
            "{exchange: in, key: a.b}",
            (4, 46),
            "with `declare: false`, it is never made",
        ),
        (
            "{in: {arguments: {a: =input.a}}}",
            "{exchange: in, key: a.b}",
            (4, 33),
            "an argument is a text, a whole number, `true`",
        ),
        (
            "{in: {arguments: {a: 1.5}}}",
            "{exchange: in, key: a.b}",
            (4, 33),
            "an argument is a text, a whole number, `true`",
        ),
        ("{in: {arguments: {a: [b]}}}", "{exchange: in, key: a.b}", (4, 33), "an argument is a text"),
        (
            "{in: {arguments: {\"\": b}}}",
            "{exchange: in, key: a.b}",
            (4, 30),
            "the name of an argument must have 1 to 255",
        ),
        (
            "{in: {arguments: {alternate-exchange: rest}}, rests: {type: fanout}}",
            "{exchange: in, key: a.b}",
            (4, 58),
            "nothing names exchange \"rests\"",
        ),
        (
            "{in: {type: headers}}",
            "{exchange: in, headers: {a: [b]}}",
            (3, 41),
            "the broker compares headers",
        ),
    ] {
        let problems = loaded(exchanges, on).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{on}: {problems:?}") };
        assert_eq!((problem.line as usize, problem.column as usize), place, "{problem}");
        assert!(problem.message.starts_with(message), "{problem}");
    }
}

/// Each row: what stands for the command of the first step, and the one problem.
#[test]
fn a_message_has_one_address_and_no_header_of_ours() {
    let loaded = |command: &str| load("f", &BASE.replace("{exchange: out, key: one}", command));
    for command in [
        "{queue: tasks}",
        "{exchange: out, key: one, headers: {tenant: =input.tenant, n: 1}, priority: 0, expires: 1m, type: t}",
    ] {
        assert!(loaded(command).is_ok(), "{command}: {:?}", loaded(command).err());
    }
    for (command, message) in [
        ("{queue: tasks, key: one}", "there is a `queue` already"),
        ("{queue: tasks, exchange: out, key: one}", "there is a `queue` already"),
        ("{exchange: out}", "missing field \"key\""),
        ("{key: one}", "missing field \"exchange\""),
        ("{body: 1}", "missing field \"exchange\""),
        ("{queue: ''}", "the queue is empty"),
        ("{queue: =input.queue}", "the queue cannot be an expression"),
        ("{queue: tasks, headers: {X-Saga-Id: 1}}", "header \"X-Saga-Id\" is sagamq's own"),
        ("{queue: tasks, headers: {traceparent: 1}}", "header \"traceparent\" is sagamq's own"),
        ("{queue: tasks, headers: {'': 1}}", "the name of a header must have 1 to 255 bytes"),
        ("{queue: tasks, headers: {a: =steps.two.output}}", "step \"two\" is not before this one"),
        (
            "{queue: tasks, headers: {a: =saga.status}}",
            "`saga.status` is not available in a header of a command",
        ),
        ("{queue: tasks, priority: 256}", "`priority` must be a whole number from 0 to 255, found `256`"),
        ("{queue: tasks, expires: 0s}", "a duration of zero"),
        ("{queue: tasks, content_type: ''}", "the content type must have 1 to 255 bytes"),
        ("{queue: tasks, type: =input.kind}", "the type cannot be an expression"),
    ] {
        let problems = loaded(command).unwrap_err();
        let [problem] = problems.as_slice() else { panic!("{command}: {problems:?}") };
        assert!(problem.message.contains(message), "{problem}");
    }
}

/// While an event at an end is out, the instance may go on: what its headers see must not change.
#[test]
fn a_header_of_an_ending_sees_only_what_never_changes() {
    let loaded = |header: &str| {
        load(
            "f",
            &BASE.replace(
                "emit: {exchange: out, key: done}",
                &format!("emit: {{queue: q, headers: {{h: {header}}}}}"),
            ),
        )
    };
    assert!(loaded("=saga.id + input.a").is_ok());
    for header in ["=saga.status", "=saga.error", "=steps.one.output"] {
        assert_eq!(loaded(header).unwrap_err().len(), 1, "{header}");
    }
}

#[test]
fn a_saga_does_not_hear_its_own_messages_on_exchanges_that_do_not_go_by_keys() {
    let loaded = |of: &str, on: &str, own: &str| {
        let base =
            BASE.replace("attributes: {customer: =input.customer}", &format!("exchanges: {{in: {of}}}"));
        let base = base.replace("{exchange: in, key: a.b}", on);
        load("f", &base.replace("emit: {exchange: out, key: done}", &format!("emit: {own}")))
    };
    let (fanout, headers) = ("{type: fanout}", "{type: headers}");
    let asked = "{exchange: in, headers: {kind: a, form: b}}";
    for (of, on, own, is_heard) in [
        (fanout, "{exchange: in}", "{exchange: in, key: x}", true),
        (fanout, "{exchange: in}", "{exchange: out, key: x}", false),
        (headers, "{exchange: in}", "{exchange: in, key: x}", true),
        (headers, asked, "{exchange: in, key: x}", false),
        (headers, asked, "{exchange: in, key: x, headers: {kind: a, form: c}}", true),
    ] {
        let codes: Vec<_> =
            loaded(of, on, own).err().unwrap_or_default().iter().map(|one| one.code).collect();
        assert_eq!(codes, if is_heard { vec![Code::OwnMessage] } else { vec![] }, "{of} {on} {own}");
    }
}

#[test]
fn a_rule_behind_one_that_takes_all_of_its_messages_is_refused() {
    let told = |first: &str, second: &str| {
        let (head, _) = ITEMS.split_once("  - {foreach").unwrap();
        let events = format!("[{{on: {{exchange: e, key: {first}}},\n {{on: {{exchange: e, key: {second}}}]");
        let source = format!("{head}  - {{wait: nod, timeout: 1m, events:\n {events}}}\n");
        let problems = load("f", &source).err().unwrap_or_default();
        problems.into_iter().map(|problem| (problem.code, problem.line)).collect::<Vec<_>>()
    };
    for (first, second) in [
        ("x.y}", "x.y}, outcome: failure"),
        ("'x.*'}", "x.y}, when: =event.data.a"),
        ("'#'}", "'*.y'}"),
        ("'x.#'}", "'x.*.#'}"),
    ] {
        assert_eq!(told(first, second), [(Code::NeverMatches, 8)], "{first} {second}");
    }
    for (first, second) in [
        ("x.y}, when: =event.data.a", "x.y}"),
        ("x.y}", "'x.*'}"),
        ("'x.*'}", "'x.#'}"),
        ("'x.*'}", "x.y.z}"),
    ] {
        assert_eq!(told(first, second), [], "{first} {second}");
    }
}

#[test]
fn what_nobody_sees_in_an_address_and_patterns_as_keys_are_refused() {
    for (from, to, code) in [
        ("key: a}", "key: \"a\\n\"}", Code::HiddenCharacter),
        ("key: a}", "key: 'a. b'}", Code::HiddenCharacter),
        ("exchange: in", "exchange: ' in'", Code::HiddenCharacter),
        ("exchange: out, key: two", "exchange: \"o\\u200but\", key: two", Code::HiddenCharacter),
        ("key: a}", "key: \"a\\u00ad\"}", Code::HiddenCharacter),
        ("key: a}", "key: \"a\\ufe0f\"}", Code::HiddenCharacter),
        ("key: a}", "key: \"a\\u3164\"}", Code::HiddenCharacter),
        ("key: a}", "key: 'a*'}", Code::NotOfItsType),
        ("key: a}", "key: a.**}", Code::NotOfItsType),
        ("key: a}", "key: 'a.##'}", Code::NotOfItsType),
        ("key: two", "key: '*.do'", Code::PatternForKey),
        ("key: one", "key: '#'", Code::PatternForKey),
    ] {
        let problems = load("f", &ITEMS.replacen(from, to, 1)).expect_err(to);
        assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [code], "{to}");
    }
    load("f", &ITEMS.replacen("key: two", "key: lang.c#", 1)).unwrap();
}

#[test]
fn the_input_has_the_fields_that_the_start_lists() {
    let start = "business_key: =event.data.id, input: {lines: =event.data.lines, x: =event.data.x}";
    let source = ITEMS.replacen("business_key: =event.data.id", start, 1);
    load("f", &source).unwrap();
    let problems = load("f", &source.replacen("items: =input.lines", "items: =input.liens", 1)).unwrap_err();
    let [problem] = problems.as_slice() else { panic!("{problems:#?}") };
    assert_eq!(problem.message, "`input.liens`: there is no field \"liens\"");
    assert_eq!(problem.hint.as_deref(), Some("did you mean `lines`?"));
}

#[test]
fn what_is_kept_of_items_is_a_list() {
    let field = ITEMS.replacen("=steps.lines.output", "=steps.lines.output.order_no", 1);
    let problems = load("f", &field).unwrap_err();
    assert_eq!(
        problems[0].message,
        "`steps.lines.output.order_no`: the output is a list, and has no field \"order_no\""
    );
    load("f", &field.replacen("=steps.lines.output.order_no", "'=steps.lines.output[0].order_no'", 1))
        .unwrap();
}

#[test]
fn a_retriable_step_before_any_pivot_is_one_problem() {
    let source = ITEMS.replacen(
        "two, body: =steps.lines.output}, compensate: none",
        "two}, kind: retriable, compensate: none",
        1,
    );
    let problems = load("f", &source).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.code).collect::<Vec<_>>(), [Code::NoPivotBefore]);
}

#[test]
fn an_error_has_fixed_fields() {
    for (path, field) in [("saga.error.mesage", "message"), ("steps.one.error.cod", "code")] {
        let body = format!("key: done, body: {{why: ={path}}}");
        let problems = load("f", &BASE.replacen("key: done", &body, 1)).unwrap_err();
        assert_eq!(
            problems.iter().map(|one| one.code).collect::<Vec<_>>(),
            [Code::UnknownPathField],
            "{path}"
        );
        assert_eq!(problems[0].hint, Some(format!("did you mean `{field}`?")));
        load("f", &BASE.replacen("key: done", &body.replace(path.rsplit('.').next().unwrap(), field), 1))
            .unwrap();
    }
}

#[test]
fn a_status_is_compared_with_what_it_can_be() {
    let told = |when: &str| {
        let step = format!("{{step: two, when: '={when}',");
        let problems = load("f", &BASE.replacen("{step: two,", &step, 1)).err().unwrap_or_default();
        problems.into_iter().map(|one| (one.code, one.hint.unwrap_or_default())).collect::<Vec<_>>()
    };
    let all = "one of pending, dispatched, succeeded, failed, unknown, skipped, compensating, compensated, not_undone";
    for (when, hint) in [
        (r#"steps.one.status == "success""#, all),
        (r#"steps["one"].status in ["failed", "skiped"]"#, "did you mean `skipped`?"),
        (r#""unknwon" == steps.one.status"#, "did you mean `unknown`?"),
    ] {
        assert_eq!(told(when), [(Code::UnknownValue, hint.to_owned())], "{when}");
    }
    for when in [r#"steps.one.status != "succeeded""#, r#"steps.one.error.code == "success""#] {
        assert_eq!(told(when), [], "{when}");
    }
}

#[test]
fn operators_of_other_languages_are_told_what_they_are_here() {
    for (expression, hint) in [
        ("input.a = null", "use `==` to compare"),
        ("input.a == 1 and input.b", "use `&&` for `and`"),
        ("input.a & input.b", "use `&&` for `and`"),
        ("input.a or input.b", "use `||` for `or`"),
        ("input.a | input.b", "use `||` for `or`"),
        ("not input.a", "use `!` for `not`"),
        ("input.policy-id", "`-` is minus: write `input[\"policy-id\"]`"),
    ] {
        let source = ITEMS.replacen("body: =steps.lines.output", &format!("body: '={expression}'"), 1);
        let problems = load("f", &source).expect_err(expression);
        assert_eq!(problems[0].hint.as_deref(), Some(hint), "{expression}");
    }
}

#[test]
fn a_saga_has_a_bounded_number_of_attributes() {
    let with = |count: usize| {
        let attributes: Vec<_> = (0..count).map(|number| format!("a{number}: =input.customer")).collect();
        load("f", &BASE.replace("customer: =input.customer", &attributes.join(", ")))
    };
    with(32).unwrap();
    let problems = with(33).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!((problems[0].code, problems[0].message.as_str()), (Code::TooLarge, "more than 32 attributes"));
}

#[test]
fn an_attribute_that_is_too_long_is_left_out() {
    let plan = load("f", BASE).unwrap();
    let attributes = |customer: &str| {
        let data = serde_json::json!({"id": "1", "customer": customer});
        let start = Message { data, ..Message::default() };
        let (instance, _) =
            transition::start(&plan, "1".to_owned(), &start, StoreId::simulated(), Timestamp(0)).unwrap();
        instance.attributes
    };
    let longest = "x".repeat(transition::MAX_ATTRIBUTE);
    assert_eq!(attributes(&longest)["customer"], longest);
    assert!(attributes(&format!("{longest}x")).is_empty());
}
