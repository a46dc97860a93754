//! `docker-compose.yml` refers only to what exists. Docker itself is not needed for that; where it
//! is, it has its say as well.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

#[test]
fn every_service_is_built_started_and_mounted_from_what_exists() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let volumes = compose["volumes"].as_object().unwrap();
    assert!(services.contains_key("rabbitmq") && services.contains_key("sagamq"));
    for (name, service) in services {
        let service = merged(service);
        assert!(service.contains_key("image"), "{name} has no image");
        if let Some(build) = service.get("build") {
            let (context, target) = (build["context"].as_str().unwrap(), build["target"].as_str().unwrap());
            let dockerfile = std::fs::read_to_string(Path::new(context).join("Dockerfile")).unwrap();
            assert!(dockerfile.contains(&format!(" AS {target}\n")), "{name}: no stage {target}");
            let program = service["command"][0].as_str().unwrap();
            let source =
                if program == "sagamq" { "src/main.rs".into() } else { format!("examples/{program}.rs") };
            assert!(Path::new(&source).exists(), "{name} runs {program}, which is not in the image");
        }
        for (needed, how) in service.get("depends_on").and_then(Value::as_object).into_iter().flatten() {
            let needed_service =
                merged(services.get(needed).unwrap_or_else(|| panic!("{name} needs {needed}")));
            if how["condition"] == "service_healthy" {
                assert!(needed_service.contains_key("healthcheck"), "{needed} has no health check");
            }
        }
        for volume in service.get("volumes").and_then(Value::as_array).into_iter().flatten() {
            let source = volume.as_str().unwrap().split(':').next().unwrap();
            let exists = if source.starts_with('.') {
                Path::new(source).exists()
            } else {
                volumes.contains_key(source)
            };
            assert!(exists, "{name} mounts {source}, which does not exist");
        }
        for port in service.get("ports").and_then(Value::as_array).into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name} is open to other hosts");
        }
    }
}

#[test]
fn the_image_holds_every_program_and_runs_as_nobody_special() {
    let dockerfile = std::fs::read_to_string("Dockerfile").unwrap();
    assert!(dockerfile.lines().any(|line| line == "USER 10001"));
    let copied = dockerfile.lines().find(|line| line.contains("for service in")).unwrap();
    for (name, service) in compose()["services"].as_object().unwrap() {
        let program = merged(service).get("command").map(|command| command[0].as_str().unwrap().to_owned());
        if let Some(program) = program.filter(|program| program != "sagamq") {
            assert!(copied.split([' ', ';']).any(|word| word == program), "{name}: {program} is not copied");
        }
    }
}

#[test]
fn the_image_holds_the_orchestrator_alone_and_what_it_needs() {
    let dockerfile = std::fs::read_to_string("Dockerfile").unwrap();
    let stages: Vec<_> = dockerfile.split("\nFROM ").collect();
    let stage = |name: &str| {
        *stages.iter().find(|stage| stage.lines().next().unwrap().ends_with(&format!(" AS {name}"))).unwrap()
    };
    let image = *stages.last().unwrap();
    assert_eq!(image, stage("sagamq"), "it is what is built by default");
    let copied: Vec<_> = image.lines().filter(|line| line.starts_with("COPY")).collect();
    assert_eq!(copied, ["COPY --from=build /out/sagamq /usr/local/bin/"]);
    assert!(image.contains("\nHEALTHCHECK ") && image.contains(r#"CMD ["sagamq", "ready"]"#), "{image}");
    assert!(image.starts_with("base AS ") && stage("services").starts_with("base AS "));
    assert!(stage("base").contains("ca-certificates") && stage("base").contains("\nUSER 10001\n"));
}

#[test]
fn no_service_has_rights_that_it_does_not_need_or_a_password_that_others_know() {
    for (name, service) in compose()["services"].as_object().unwrap() {
        let service = merged(service);
        assert_eq!(service["cap_drop"], serde_json::json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], serde_json::json!(["no-new-privileges:true"]), "{name}");
        if name != "rabbitmq" {
            assert_eq!(service["read_only"], true, "{name}");
        }
    }
    let text = std::fs::read_to_string("docker-compose.yml").unwrap();
    let uses: Vec<_> =
        text.match_indices("${RABBITMQ_PASSWORD").map(|(at, found)| &text[at + found.len()..]).collect();
    assert_eq!(uses.len(), 2);
    assert!(uses.iter().all(|rest| rest.starts_with(":?")), "it must be set");
    assert!(
        uses.iter().any(|rest| rest.contains("openssl rand -hex 16") && rest.contains(".env")),
        "it says how"
    );
}

#[test]
fn docker_compose_accepts_it_where_it_is_installed() {
    let installed = Command::new("docker").args(["compose", "version"]).output();
    if installed.is_ok_and(|output| output.status.success()) {
        let output = Command::new("docker")
            .args(["compose", "config", "-q"])
            .env("RABBITMQ_PASSWORD", "x")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn compose() -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string("docker-compose.yml").unwrap()).unwrap()
}

/// A service with what it takes over by `<<`, whether or not the parser has merged it.
fn merged(service: &Value) -> Map<String, Value> {
    let mut own = service.as_object().unwrap().clone();
    let mut all = own.remove("<<").and_then(|shared| shared.as_object().cloned()).unwrap_or_default();
    if let Some(shared) = all.remove("<<").and_then(|shared| shared.as_object().cloned()) {
        all = shared.into_iter().chain(all).collect();
    }
    all.extend(own);
    all
}
