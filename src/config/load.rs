//! Putting settings together: file, environment, flags, each over the one before.
//!
//! Every setting is a single value, so all three sources come down to the same thing: a key, a text
//! and the place where it was written. The last source that names a key wins; only then is its text
//! read, so that what is overridden need not even be valid.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use super::Config;
use super::settings::{SECRETS, SETTINGS};

/// The file that is read from the working folder where no other is named. It need not exist.
pub const DEFAULT_FILE: &str = "sagamq.yaml";

/// First part of the names of environment variables.
const ENV_PREFIX: &str = "SAGAMQ_";

/// The variable that stands for the flag `--ca` of what asks a running orchestrator. It is no setting.
pub const CA_VARIABLE: &str = "SAGAMQ_CA";

/// A setting that was given as a flag.
pub struct Override {
    /// The flag, for messages, such as `--bind`.
    pub flag: &'static str,
    /// The key that it sets, such as `http.bind`.
    pub key: &'static str,
    /// What it was given.
    pub value: String,
}

/// Why there are no settings. No message shows the value of a secret.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file that was named cannot be read.
    #[error("cannot read {what} {}: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// What the file is.
        what: String,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The settings file is not YAML.
    #[error("{} is not valid YAML: {message}", path.display())]
    NotYaml {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// There is no such setting.
    #[error("{place}: unknown setting {key}{hint}")]
    Unknown {
        /// File, environment variable or flag.
        place: String,
        /// The key as a path.
        key: String,
        /// What may have been meant.
        hint: String,
    },
    /// A setting's value cannot be used.
    #[error("{place}: {key} {problem}")]
    Invalid {
        /// File, environment variable or flag.
        place: String,
        /// The key as a path.
        key: String,
        /// What it must be.
        problem: String,
    },
}

impl Config {
    /// Puts the settings together: defaults, then the file, then the environment, then flags.
    ///
    /// `path` is a file that must exist; without it `sagamq.yaml` in the working folder is read if
    /// it is there. `environment` is all of the process's variables; an empty one counts as not
    /// set. Paths in settings are relative to the working folder.
    ///
    /// # Errors
    /// A file that cannot be read, an unknown key, a value that cannot be used; each names the place
    /// and the key.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: Vec<Override>,
    ) -> Result<Self, ConfigError> {
        let mut chosen = BTreeMap::new();
        for layer in [from_file(path)?, from_environment(environment)?, from_flags(flags)] {
            overlay(&mut chosen, layer)?;
        }
        let mut config = Self::default();
        for entry in chosen.into_values() {
            entry.apply(&mut config)?;
        }
        Ok(config)
    }
}

/// A setting as it was written somewhere.
struct Entry {
    key: String,
    text: String,
    /// File, environment variable or flag, for messages.
    place: String,
    /// How a key is written in that place.
    notation: fn(&str) -> String,
}

impl Entry {
    /// The setting that is meant: for `<key>_file` of a secret that is `<key>`.
    fn setting(&self) -> Result<&'static str, ConfigError> {
        let named = |key: &str| SETTINGS.iter().map(|(name, _)| *name).find(|name| *name == key);
        let secret = self.key.strip_suffix("_file").filter(|key| SECRETS.contains(key));
        named(secret.unwrap_or(&self.key)).ok_or_else(|| ConfigError::Unknown {
            place: self.place.clone(),
            key: self.key.clone(),
            hint: self.hint(),
        })
    }

    fn hint(&self) -> String {
        let section = format!("{}.", self.key);
        let inside: Vec<_> =
            SETTINGS.iter().map(|(key, _)| *key).filter(|key| key.starts_with(&section)).collect();
        if !inside.is_empty() {
            return format!(", it is a section: {}", inside.join(", "));
        }
        let files = SECRETS.iter().map(|key| format!("{key}_file"));
        let all = SETTINGS.iter().map(|(key, _)| (*key).to_owned()).chain(files);
        let nearest = all.map(|key| (strsim::damerau_levenshtein(&key, &self.key), key)).min();
        match nearest {
            Some((distance, key)) if distance <= 1 + key.len() / 3 => {
                format!(", did you mean {}?", (self.notation)(&key))
            }
            _ => String::new(),
        }
    }

    fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        let key = self.setting()?;
        let (text, place) = if self.key == key {
            (self.text.clone(), self.place.clone())
        } else {
            // A secret that was given in place of its file must not get into a message.
            if self.text.contains("://") {
                let problem = format!("must name a file that holds {key}, it looks like {key} itself");
                return Err(ConfigError::Invalid {
                    place: self.place.clone(),
                    key: self.key.clone(),
                    problem,
                });
            }
            let file = PathBuf::from(&self.text);
            let what = format!("the file of {key}, named by {},", self.place);
            let content = fs::read_to_string(&file).map_err(|source| ConfigError::Unreadable {
                what,
                path: file.clone(),
                source,
            })?;
            (content.trim().to_owned(), file.display().to_string())
        };
        let set = SETTINGS.iter().find(|(name, _)| *name == key).map(|(_, set)| set);
        let outcome = set.map_or(Ok(()), |set| set(config, &text));
        outcome.map_err(|problem| ConfigError::Invalid { place, key: key.to_owned(), problem })
    }
}

/// Puts a layer over what was chosen so far.
fn overlay(chosen: &mut BTreeMap<&'static str, Entry>, layer: Vec<Entry>) -> Result<(), ConfigError> {
    let mut own: BTreeMap<&'static str, Entry> = BTreeMap::new();
    for entry in layer {
        let setting = entry.setting()?;
        if let Some(other) = own.get(setting) {
            let problem = format!("is given twice, also by {} in {}: keep one", other.key, other.place);
            return Err(ConfigError::Invalid { place: entry.place, key: entry.key, problem });
        }
        own.insert(setting, entry);
    }
    chosen.extend(own);
    Ok(())
}

fn from_file(named: Option<&Path>) -> Result<Vec<Entry>, ConfigError> {
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(ConfigError::Unreadable {
                what: "settings file".to_owned(),
                path: path.into(),
                source,
            });
        }
    };
    // Without snippets: the line that is wrong may be the one with the password.
    let options = serde_saphyr::options! { with_snippet: false };
    let parsed: Option<Value> =
        serde_saphyr::from_str_with_options(&text, options).map_err(|error| ConfigError::NotYaml {
            path: path.into(),
            message: error.render_with_formatter(&serde_saphyr::UserMessageFormatter),
        })?;
    let mut entries = Vec::new();
    flatten(String::new(), parsed.unwrap_or(Value::Null), &path.display().to_string(), &mut entries)?;
    Ok(entries)
}

fn flatten(key: String, value: Value, place: &str, entries: &mut Vec<Entry>) -> Result<(), ConfigError> {
    let is_section = key.is_empty() || SETTINGS.iter().any(|(name, _)| name.starts_with(&format!("{key}.")));
    let invalid = |problem: &str| {
        let key = if key.is_empty() { "the document".to_owned() } else { key.clone() };
        Err(ConfigError::Invalid { place: place.to_owned(), key, problem: problem.to_owned() })
    };
    let text = match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                // A URL in braces is read as the name of a setting, and may hold a password.
                let name = if name.contains("://") { "***".to_owned() } else { name };
                let path = if key.is_empty() { name } else { format!("{key}.{name}") };
                flatten(path, value, place, entries)?;
            }
            return Ok(());
        }
        Value::Null if is_section => return Ok(()),
        _ if key.is_empty() => return invalid("must be a mapping of settings"),
        Value::String(text) => text,
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Null => return invalid("has no value: give it one, or leave it out"),
        Value::Array(_) => return invalid("must be a single value, not a list"),
    };
    entries.push(Entry { key, text, place: place.to_owned(), notation: str::to_owned });
    Ok(())
}

fn from_environment(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Entry>, ConfigError> {
    let mut entries = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let is_setting = name != CA_VARIABLE && !is_service_link(name);
        let Some(key) = name.strip_prefix(ENV_PREFIX).filter(|_| is_setting) else { continue };
        let key = key.replace("__", ".").to_ascii_lowercase();
        let place = format!("environment variable {name}");
        match value.into_string() {
            Ok(text) if text.is_empty() => {}
            Ok(text) => entries.push(Entry { key, text, place, notation: env_name }),
            Err(_) => return Err(ConfigError::Invalid { place, key, problem: "is not UTF-8".to_owned() }),
        }
    }
    Ok(entries)
}

fn env_name(key: &str) -> String {
    format!("{ENV_PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// Kubernetes gives every container variables about the services around it; for a service named
/// `sagamq` they are `SAGAMQ_SERVICE_HOST`, `SAGAMQ_PORT_7654_TCP_ADDR` and so on. They are not
/// settings, and not mistakes either.
fn is_service_link(name: &str) -> bool {
    let has = |part: &str| name.contains(part);
    !has("__") && (has("_SERVICE_HOST") || has("_SERVICE_PORT") || has("_PORT_") || name.ends_with("_PORT"))
}

fn from_flags(flags: Vec<Override>) -> Vec<Entry> {
    let entry = |flag: Override| Entry {
        key: flag.key.to_owned(),
        text: flag.value,
        place: flag.flag.to_owned(),
        notation: str::to_owned,
    };
    flags.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
        fs::write(file.path(), text).unwrap();
        file
    }

    fn load(yaml: &str, environment: &[(&str, &str)], flags: Vec<Override>) -> Result<Config, String> {
        let file = file(yaml);
        let environment = environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let shown = file.path().display().to_string();
        let outcome = Config::load(Some(file.path()), environment.collect::<Vec<_>>(), flags);
        outcome.map_err(|error| error.to_string().replace(&shown, "FILE"))
    }

    fn bind(value: &str) -> Vec<Override> {
        vec![Override { flag: "--bind", key: "http.bind", value: value.to_owned() }]
    }

    #[test]
    fn each_source_overrides_the_one_before() {
        let yaml =
            "broker: {prefix: a, prefetch: 7, startup_timeout: 2m}\nhttp: {bind: '127.0.0.1:1'}\nlog:\n";
        let environment =
            [("SAGAMQ_BROKER__PREFIX", "b"), ("SAGAMQ_HTTP__BIND", "127.0.0.1:2"), ("HOME", "/")];
        let config = load(yaml, &environment, bind("127.0.0.1:3")).unwrap();
        assert_eq!(config.broker.prefetch, 7);
        assert_eq!(config.broker.startup_timeout, Duration::from_secs(120));
        assert_eq!(config.broker.prefix, "b");
        assert_eq!(config.http.bind.port(), 3);
        assert_eq!(config.store, Config::default().store);
    }

    #[test]
    fn instances_are_kept_for_ever_or_as_long_as_is_said() {
        let yaml = "retention: {completed: 7d, compensated: 30d, archive: /archive}";
        let set = load(yaml, &[("SAGAMQ_RETENTION__COMPENSATED", "forever")], vec![]).unwrap().retention;
        assert_eq!((set.completed, set.compensated), (Some(Duration::from_secs(7 * 86_400)), None));
        assert_eq!(set.archive, Path::new("/archive"));
        let refused = load("retention: {completed: 0s}", &[], vec![]).unwrap_err();
        let words = "FILE: retention.completed must be a duration of at least 1s, such as 7d, or forever";
        assert!(refused.starts_with(words), "{refused}");
    }

    #[test]
    fn tls_has_settings_in_every_notation() {
        let yaml = "broker: {tls: {ca: ca.pem, cert: '', server_name: mq.example}}";
        let tls = load(yaml, &[("SAGAMQ_BROKER__TLS__KEY", "k.pem")], vec![]).unwrap().broker.tls;
        let path = |name: &str| Some(PathBuf::from(name));
        assert_eq!((tls.ca, tls.cert, tls.key), (path("ca.pem"), None, path("k.pem")));
        assert_eq!(tls.server_name.as_deref(), Some("mq.example"));
        let wrong = "broker: {tls: {server_name: 'mq.example:5671'}}";
        let refused = load(wrong, &[], vec![]).unwrap_err();
        let words = "FILE: broker.tls.server_name must be a DNS name or an IP address, without port, not";
        assert!(refused.starts_with(words), "{refused}");
        let refused = load("broker: {tls: {verify: none}}", &[], vec![]).unwrap_err();
        assert!(refused.starts_with("FILE: unknown setting broker.tls.verify"), "{refused}");
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        assert_eq!(load("", &[("SAGAMQ_DEFINITIONS", "")], Vec::new()), Ok(Config::default()));
        assert_eq!(load("# nothing\n", &[], Vec::new()), Ok(Config::default()));
        let missing = Config::load(Some(Path::new("/no/such.yaml")), [], Vec::new()).unwrap_err();
        assert!(missing.to_string().starts_with("cannot read settings file /no/such.yaml: "), "{missing}");
    }

    #[test]
    fn unknown_settings_are_named_with_their_place_and_what_was_meant() {
        let cases = [
            (
                load("broker: {prefetchh: 5}", &[], vec![]),
                "FILE: unknown setting broker.prefetchh, did you mean broker.prefetch?",
            ),
            (
                load("brokr: {url: x}", &[], vec![]),
                "FILE: unknown setting brokr.url, did you mean broker.url?",
            ),
            (load("zzzzzzzzzzzz: 1", &[], vec![]), "FILE: unknown setting zzzzzzzzzzzz"),
            (
                load("http: 7654", &[], vec![]),
                "FILE: unknown setting http, it is a section: http.bind, http.hosts",
            ),
            (
                load("", &[("SAGAMQ_BROKER_URL", "x")], vec![]),
                "environment variable SAGAMQ_BROKER_URL: unknown setting broker_url, did you mean SAGAMQ_BROKER__URL?",
            ),
        ];
        for (outcome, message) in cases {
            assert_eq!(outcome, Err(message.to_owned()));
        }
    }

    #[test]
    fn unusable_values_are_named_with_their_place_and_what_they_must_be() {
        let cases = [
            (
                load("broker: {prefetch: 0}", &[], vec![]),
                "FILE: broker.prefetch must be a whole number from 1 to 65535, not \"0\"",
            ),
            (
                load("broker: {confirm_timeout: 999ms}", &[], vec![]),
                "FILE: broker.confirm_timeout must be a duration of at least 1s",
            ),
            (load("broker: {prefix: 'a b'}", &[], vec![]), "FILE: broker.prefix must be 1 to 200 letters"),
            (
                load("broker: {topology: maybe}", &[], vec![]),
                "must be one of declare, verify, none, not \"maybe\"",
            ),
            (load("store: {path: [a]}", &[], vec![]), "FILE: store.path must be a single value, not a list"),
            (load("definitions:", &[], vec![]), "FILE: definitions has no value"),
            (load("- a", &[], vec![]), "FILE: the document must be a mapping of settings"),
            (load("a: [", &[], vec![]), "FILE is not valid YAML: "),
            (
                load("", &[("SAGAMQ_LOG__FORMAT", "xml")], vec![]),
                "environment variable SAGAMQ_LOG__FORMAT: log.format must be one of",
            ),
            (load("", &[], bind("localhost:1")), "--bind: http.bind must be an IP address and a port"),
        ];
        for (outcome, message) in cases {
            let error = outcome.unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_value_that_is_overridden_is_not_even_read() {
        let config =
            load("broker: {url_file: /no/such}", &[("SAGAMQ_BROKER__URL", "amqp://host")], vec![]).unwrap();
        assert_eq!(config.broker.url.expose(), "amqp://host");
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        let secret = file(" amqp://u:hunter2@host/v \n");
        let path = secret.path().to_str().unwrap();
        let config = load("", &[("SAGAMQ_BROKER__URL_FILE", path)], vec![]).unwrap();
        assert_eq!(config.broker.url.expose(), "amqp://u:hunter2@host/v");
        let twice =
            load("", &[("SAGAMQ_BROKER__URL_FILE", path), ("SAGAMQ_BROKER__URL", "amqp://h")], vec![]);
        assert!(twice.unwrap_err().contains("is given twice, also by broker.url_file"));
        let missing = load("broker: {url_file: /no/such}", &[], vec![]).unwrap_err();
        assert!(
            missing.starts_with("cannot read the file of broker.url, named by FILE, /no/such: "),
            "{missing}"
        );
    }

    #[test]
    fn a_secret_is_never_shown() {
        let config = load("broker: {url: 'amqp://u:hunter2@host:5672/v'}", &[], vec![]).unwrap();
        let shown = format!("{config:?} {} {}", config.broker.url, config.broker.shown_url());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.ends_with("*** amqp://u@host:5672/v"), "{shown}");
        let broken = [
            "broker: {url: 'amqp://u:hunter2/@host'}",
            "broker:\n  url: \"amqp://u:hunter2@host\n\tx: [",
            "broker: {url: [hunter2]}",
            "broker: {url: {amqp://u:hunter2@host}}",
            "broker: {url_file: 'amqp://u:hunter2@host'}",
        ];
        for yaml in broken {
            let error = load(yaml, &[], vec![]).unwrap_err();
            assert!(!error.contains("hunter2"), "{error}");
        }
        let secret = file("http://hunter2");
        let environment = [("SAGAMQ_BROKER__URL_FILE", secret.path().to_str().unwrap())];
        let error = load("", &environment, vec![]).unwrap_err();
        assert!(error.ends_with("broker.url must start with amqp:// or amqps://"), "{error}");
    }

    #[test]
    fn variables_about_a_service_of_that_name_are_not_settings() {
        let links =
            ["SAGAMQ_SERVICE_HOST", "SAGAMQ_PORT", "SAGAMQ_PORT_7654_TCP_ADDR", "SAGAMQ_HTTP_SERVICE_PORT"];
        assert_eq!(load("", &links.map(|name| (name, "10.0.0.1")), vec![]), Ok(Config::default()));
        assert!(load("", &[("SAGAMQ_HTTP__PORT", "1")], vec![]).is_err());
    }
}
