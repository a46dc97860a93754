//! What cannot be used is refused in one error that names it and what to do, with the exit code that
//! is promised.

use std::fs;
use std::net::TcpListener;

use crate::process::{PROMPT, Site, eventually};
use crate::{BROKER, CANARY, order_saga};

fn site() -> Site {
    Site::new(&order_saga("", "5s"))
}

#[test]
fn a_broken_definition_is_shown_with_its_line_and_a_hint() {
    let order = order_saga("", "5s");
    let cases = [
        (
            order.replacen("timeout: 5s", "timout: 5s", 1),
            ":53:5\n",
            "53 |     timout: 5s",
            "did you mean `timeout`?",
        ),
        (
            order.replacen("retry: normal", "retry: norml", 1),
            ":56:12\n",
            "56 |     retry: norml",
            "did you mean `normal`?",
        ),
        (
            "saga: order\nstart: {on: {exchange: a, key: b\nsteps: []\n".to_owned(),
            ":3:6\n",
            "3 | steps: []",
            "did not find expected ',' or '}'",
        ),
        (order.replacen("=input.items", "=input.items +", 1), ":52:", "=input.items +", "expression"),
    ];
    for (text, place, line, hint) in cases {
        let site = Site::new(&text);
        let parts = ["sagas/order.yaml", place, line, hint];
        site.call(&["run"]).assert_refused(1, &parts);
        site.call(&["topology"]).assert_refused(1, &parts);
        let checked = site.call(&["check"]);
        assert_eq!((checked.code, checked.err.as_str()), (Some(1), ""), "{checked:?}");
        assert!(checked.out.starts_with("error[S"), "{checked:?}");
        assert!(parts.iter().all(|part| checked.out.contains(part)), "{checked:?}");
        let told = site.call(&["check", "--json"]);
        let report: serde_json::Value = serde_json::from_str(&told.out).unwrap();
        assert_eq!((told.code, &report["problems"][0]["line"].is_u64()), (Some(1), &true), "{report}");
        assert!(!site.path("sagamq-data").exists(), "the store was made");
    }
}

#[test]
fn definitions_that_are_not_there_are_refused() {
    let site = site();
    fs::remove_file(site.path("sagas/order.yaml")).unwrap();
    site.call(&["run"]).assert_refused(1, &["there is no saga definition", "sagas\n", ".yaml or .yml"]);
    let parts = ["elsewhere\n", "cannot be read: No such file", "--definitions", "setting `definitions`"];
    site.call(&["run", "--definitions", "elsewhere"]).assert_refused(1, &parts);
}

#[test]
fn wrong_settings_are_refused_with_their_place_and_what_they_must_be() {
    let url = format!("amqp://app:{CANARY}@mq");
    let files = [
        ("broker: {urll: x}", &["sagamq.yaml: unknown setting broker.urll, did you mean broker.url?"][..]),
        ("broker: amqp://x", &["unknown setting broker, it is a section: broker.url, "]),
        ("broker: [", &["sagamq.yaml is not valid YAML: ", "line 1, column "]),
        ("- a", &["sagamq.yaml: the document must be a mapping of settings"]),
        ("http: {bind: 'localhost:1'}", &["http.bind must be an IP address and a port", "\"localhost:1\""]),
        (&format!("broker: {{url: {{{url}}}}}"), &["broker.url.*** has no value"]),
        (&format!("broker: {{url: '{url}:99999'}}"), &["broker.url must have a port from 1 to 65535"]),
    ];
    for (text, parts) in files {
        let site = site();
        site.write("sagamq.yaml", text);
        // The environment comes over the file.
        let mut command = site.command(&["run"]);
        let output = command.env_clear().output().unwrap();
        let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        crate::process::Ended { code: output.status.code(), out, err }.assert_refused(2, parts);
    }
    let variables = [
        ("BROKER__URLL", "x", &["SAGAMQ_BROKER__URLL", "did you mean SAGAMQ_BROKER__URL?"][..]),
        (
            "BROKER__PREFETCH",
            "0",
            &["SAGAMQ_BROKER__PREFETCH", "broker.prefetch must be a whole number from 1"],
        ),
        ("BROKER__STARTUP_TIMEOUT", "soon", &["SAGAMQ_BROKER__STARTUP_TIMEOUT", "a duration such as 30s"]),
        ("BROKER__TOPOLOGY", "make", &["SAGAMQ_BROKER__TOPOLOGY", "must be one of declare, verify, none"]),
        ("LOG__LEVEL", "loud", &["log.level", "\"loud\"", "error, warn, info, debug, trace"]),
        ("BROKER__URL", &format!("http://app:{CANARY}@mq"), &["SAGAMQ_BROKER__URL", "start with amqp://"]),
        ("BROKER__URL", &format!("{url}:0"), &["SAGAMQ_BROKER__URL", "port from 1 to 65535"]),
    ];
    for (key, value, parts) in variables {
        let mut site = site();
        site.set(key, value);
        site.call(&["run"]).assert_refused(2, parts);
    }
    let cases = [
        ("absent.txt", &["absent.txt: No such file", "check the path"][..]),
        (&url, &["SAGAMQ_BROKER__URL_FILE", "must name a file that holds broker.url"]),
    ];
    for (value, parts) in cases {
        let mut site = site();
        site.set("BROKER__URL", "");
        site.set("BROKER__URL_FILE", value);
        site.call(&["run"]).assert_refused(2, parts);
    }
}

#[test]
fn an_unknown_setting_is_refused_by_all_that_reads_settings_and_by_nothing_else() {
    let mut site = site();
    site.set("BROKER__URLL", "x");
    let reading = ["check", "test", "graph", "explain", "asyncapi", "list", "versions", "ready"];
    for command in reading.into_iter().chain(["run", "topology", "replay", "compact", "demo", "bench"]) {
        site.call(&[command]).assert_refused(2, &["unknown setting broker.urll"]);
    }
    site.printed(&["test", "sagas", "--no-pairs"]);
    for command in ["check", "graph", "explain", "asyncapi"] {
        site.printed(&[command, "sagas"]);
    }
    site.printed(&["schema"]);
    let url = format!("http://127.0.0.1:{}", site.port);
    site.call(&["list", "--url", &url]).assert_refused(3, &[&url]);
}

#[test]
fn wrong_arguments_are_refused() {
    let site = site();
    let url = format!("amqp://app:{CANARY}@mq");
    let cases = [
        (&["lst"][..], &["unrecognized subcommand 'lst'", "'list'"][..]),
        (&["list", "--status", "done"], &["'done'", "--status", "running, compensating, parked"]),
        (&["list", "--limit", "many"], &["'many'", "--limit"]),
        (&["show"], &["<ID or BUSINESS_KEY>"]),
        (&["run", "--bind", "here"], &["--bind: http.bind must be an IP address and a port"]),
        (&["run", "--config", "absent.yaml"], &["settings file absent.yaml: No such file", "check the path"]),
        (&["run", "--url", &url], &["--url names a running orchestrator", "--broker-url"]),
        (&["list", "--url", &url], &["amqp://mq cannot be the address of the API", "http://127.0.0.1:7654"]),
    ];
    for (arguments, parts) in cases {
        site.call(arguments).assert_refused(2, parts);
    }
}

#[test]
fn where_no_orchestrator_runs_the_question_is_answered_with_what_to_do() {
    let site = site();
    let address = format!("no orchestrator answers at http://127.0.0.1:{}", site.port);
    for arguments in [&["list"][..], &["show", "A-1"], &["dead-letters"], &["ready"]] {
        site.call(arguments).assert_refused(3, &[&address, "is `sagamq run` running?", "--url"]);
    }
}

#[test]
fn an_address_in_use_is_refused_before_the_store_is_touched() {
    let site = site();
    let taken = TcpListener::bind(("127.0.0.1", site.port)).unwrap();
    let parts = [&taken.local_addr().unwrap().to_string(), "Address already in use", "http.bind or --bind"];
    site.call(&["run"]).assert_refused(3, &parts);
    assert!(!site.path("sagamq-data").exists(), "the store was made");
}

#[test]
fn a_store_in_use_is_refused_with_the_process_that_has_it() {
    let mut site = site();
    site.set("BROKER__STARTUP_TIMEOUT", "10m");
    let mut first = site.start(&["run"]);
    let lock = site.path("sagamq-data/lock");
    let pid = format!("{}\n", first.pid());
    eventually("the first one has the store", || fs::read_to_string(&lock).is_ok_and(|text| text == pid));
    let second = site.call(&["run", "--bind", "127.0.0.1:0"]);
    let holder = format!("is in use by process {}: stop that process", first.pid());
    second.assert_refused(3, &["./sagamq-data", &holder, "store.path"]);
    assert_eq!(first.code(), None, "the first one ended too");
}

#[test]
fn a_store_folder_that_cannot_be_made_is_refused() {
    let site = site();
    site.write("a-file", "");
    // Not even root may make a folder in /sys.
    for path in ["a-file", "a-file/store", "/sys/sagamq-store"] {
        let parts = [&format!("cannot make folder {path}"), "check store.path, its permissions"];
        site.call(&["run", "--store", path]).assert_refused(3, &parts);
    }
}

#[test]
fn a_definition_that_was_changed_under_its_version_is_refused() {
    let site = Site::with_broker(&order_saga(".changed", "5s"), &BROKER.url(), "changed");
    site.run_until_ready().stop();
    let changed = order_saga(".changed", "6s");
    site.write("sagas/order.yaml", &changed);
    let parts = [
        "error[S0703]: saga order v1 is not the one that was deployed\n --> ./sagas/order.yaml",
        "a higher `version`",
    ];
    site.call(&["run"]).assert_refused(1, &parts);
    site.write("sagas/order.yaml", changed.replace("version: 1", "version: 2"));
    site.run_until_ready().stop();
}

#[test]
fn a_broker_that_refuses_the_user_or_the_virtual_host_ends_the_start_at_once() {
    let url = BROKER.url();
    let address = url.rsplit_once('@').unwrap().1.split('/').next().unwrap();
    let wrong_user = format!("amqp://nobody:{CANARY}@{address}/%2f");
    let wrong_vhost = url.replace("%2f", "nowhere");
    let cases = [
        (&wrong_user, &["refused the user: ", "ACCESS_REFUSED", "check user and password in broker.url"][..]),
        (&wrong_vhost, &["refused virtual host \"nowhere\"", "rabbitmqctl add_vhost"]),
    ];
    for (url, parts) in cases {
        let mut site = site();
        site.set("BROKER__URL", url);
        site.set("BROKER__STARTUP_TIMEOUT", "10m");
        let mut refused = site.start(&["run"]);
        let code = refused.ends_within(PROMPT);
        crate::process::Ended { code, out: refused.out(), err: refused.err() }.assert_refused(3, parts);
    }
}
