//! Where a configuration comes from: file, variables, flags; that it can be checked before anybody is served, and what shells complete.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use chorus_net::testing::{Authority, Validity};
use chorus_tests::{Chorus, Ended, PATIENT, binary, models};
use tempfile::TempDir;

const FILE: &str =
    "[fusion]\nrule = 'logit_max'\n[[members]]\nname = 'alto'\naddress = 'http://127.0.0.1:9'\n";

fn command<S: AsRef<OsStr>>(arguments: &[S], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).envs(variables.iter().copied());
    command
}

fn start<S: AsRef<OsStr>>(arguments: &[S], variables: &[(&str, &str)]) -> Chorus {
    Chorus::start_command(command(arguments, variables), Stdio::null())
}

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    start(arguments, variables).wait()
}

fn printed(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let ended = run(arguments, variables);
    assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
    ended.stdout
}

/// The exit code, and the line on stderr.
fn refused(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let ended = run(arguments, variables);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
    let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{}", ended.stderr);
    (ended.status.code().unwrap(), lines[0].to_owned())
}

#[test]
fn worker_coordinator_and_client_take_all_they_need_from_the_environment() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ensemble.toml");
    fs::write(&file, format!("{PATIENT}{FILE}")).unwrap();
    let model = models::demo("alto");
    let mut worker = start(
        &["worker"],
        &[("CHORUS_WORKER_MODEL", model.to_str().unwrap()), ("CHORUS_WORKER_LISTEN", "127.0.0.1:0")],
    );
    let members = format!("voice=http://{}", worker.listening());
    let variables = [
        ("CHORUS_CONFIG", file.to_str().unwrap()),
        ("CHORUS_MEMBERS", members.as_str()),
        ("CHORUS_LISTEN", "127.0.0.1:0"),
        ("CHORUS_LIMITS_MAX_GENERATED_TOKENS", "5"),
        ("CHORUS_FUSION_RULE", "log_linear"),
        // What a cluster may set.
        ("CHORUS_SERVICE_HOST", "10.0.0.1"),
    ];
    let mut coordinator = start(&["coordinator", "--threshold", "0.25"], &variables);
    let address = coordinator.listening().to_string();
    let client = [("CHORUS_CLIENT_ADDR", address.as_str())];
    printed(&["health", "--wait", "60"], &client);
    let status: serde_json::Value = serde_json::from_str(&printed(&["status", "--json"], &client)).unwrap();
    assert_eq!((&status["rule"], &status["threshold"]), (&"log_linear".into(), &0.25.into()));
    assert_eq!(
        (&status["members"][0]["name"], &status["members"].as_array().unwrap().len()),
        (&"voice".into(), &1)
    );
    assert_eq!(status["limits"]["max_generated_tokens"], 5);
}

#[test]
fn a_configuration_is_checked_with_everything_that_stands_over_it() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ensemble.toml");
    fs::write(&file, FILE).unwrap();
    let file = file.to_str().unwrap();
    let check = ["config", "check", "--config", file];
    let good = printed(&check, &[("CHORUS_FUSION_THRESHOLD", "0.5")]);
    assert!(good.contains("1: alto") && good.contains("logit_max (threshold 0.5)"), "{good}");
    assert!(good.contains("CHORUS_FUSION_THRESHOLD"), "{good}");

    let by_flag = [&check[..], &["--member", "voice=http://127.0.0.1:9", "--threshold", "0.4"]].concat();
    let variables = [("CHORUS_MEMBERS", "a=http://127.0.0.1:9"), ("CHORUS_FUSION_THRESHOLD", "0.5")];
    let good = printed(&by_flag, &[&variables[..], &[("CHORUS_LISTEN", "127.0.0.1:0")]].concat());
    assert!(good.contains("1: voice") && good.contains("(threshold 0.4)"), "{good}");
    assert!(good.contains("variables   CHORUS_LISTEN\n"), "only what no flag stands over: {good}");

    // What is shown is the same configuration, whole.
    let show = ["config", "show", "--config", file, "--max-sessions", "7"];
    let shown = printed(&show, &[("CHORUS_FUSION_RULE", "log_linear")]);
    let whole = folder.path().join("whole.toml");
    fs::write(&whole, &shown).unwrap();
    assert!(shown.contains("max_sessions = 7") && shown.contains("rule = \"log_linear\""), "{shown}");
    assert_eq!(printed(&["config", "show", "--config", whole.to_str().unwrap()], &[]), shown);

    let (code, error) = refused(&check, &[("CHORUS_FUSION_THRESHOLD", "2")]);
    assert_eq!(code, 2);
    assert!(
        error.starts_with("error: CHORUS_FUSION_THRESHOLD: fusion.threshold: 2 is not allowed"),
        "{error}"
    );
    let (code, error) = refused(&check, &[("CHORUS_AUTH_TOKENS", "no-such-file.toml")]);
    assert!(code == 1 && error.contains("auth.tokens") && error.contains("no-such-file.toml"), "{error}");
    let identities = [1, 2].map(|_| Authority::new("tests").vouch(&["server"], Validity::Now));
    let [certificate, other_key] = ["server.pem", "other.key"].map(|name| folder.path().join(name));
    fs::write(&certificate, &identities[0].certificate).unwrap();
    fs::write(&other_key, &identities[1].key).unwrap();
    let pair = [
        ("CHORUS_TLS_CERTIFICATE", certificate.to_str().unwrap()),
        ("CHORUS_TLS_KEY", other_key.to_str().unwrap()),
    ];
    let (code, error) = refused(&check, &pair);
    assert!(code == 1 && error.contains("tls"), "a key of another certificate: {error}");
    let (code, error) =
        refused(&[&check[..], &["--threshold", "2"]].concat(), &[("CHORUS_FUSION_RULE", "logit_max")]);
    assert!(code == 2 && !error.contains("CHORUS_"), "a flag is not blamed on a variable: {error}");
    fs::write(&whole, format!("colour = 1\n{FILE}")).unwrap();
    let (code, error) = refused(&["config", "check", "--config", whole.to_str().unwrap()], &[]);
    assert!(code == 1 && error.contains("whole.toml") && error.contains("colour"), "{error}");

    let slip = run(&check, &[("CHORUS_FUSION_RULLE", "log_linear")]);
    assert!(
        slip.status.success() && slip.stderr.contains("did you mean CHORUS_FUSION_RULE?"),
        "{}",
        slip.stderr
    );
}

#[test]
fn every_variable_is_listed_and_every_one_is_understood() {
    let listed = printed(&["config", "variables"], &[]);
    let names = listed.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let names: Vec<Vec<&str>> = names.collect();
    assert!(
        names.len() > 40 && names.contains(&vec!["CHORUS_PREFIX_CACHE_MAX_BYTES", "prefix_cache.max_bytes"])
    );
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("ensemble.toml");
    fs::write(&file, FILE).unwrap();
    let check = ["config", "check", "--config", file.to_str().unwrap()];
    let of_process: Vec<&str> =
        names.iter().filter(|row| row[1].starts_with("--")).map(|row| row[1]).collect();
    assert_eq!(of_process, ["--config", "--threads", "--log-format", "--log"]);
    let help = printed(&["coordinator", "--help"], &[]);
    assert!(of_process.iter().all(|flag| help.contains(flag)), "{help}");
    for name in names.iter().filter(|row| !row[1].starts_with("--")).map(|row| row[0]) {
        // No key takes this, and no file has this name.
        let (_, error) = refused(&check, &[(name, "~ ~")]);
        assert!(error.contains("~ ~") || error.contains(name), "{name}: {error}");
    }
}

/// Every flag of the two processes that operators run stands in their notes.
#[test]
fn every_flag_of_the_servers_is_in_the_operating_notes() {
    let notes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/README.md");
    let notes = fs::read_to_string(notes).unwrap();
    for command in ["worker", "coordinator"] {
        let help = printed(&[command, "--help"], &[]);
        let flags = help.lines().filter_map(|line| {
            let line = line.trim_start();
            let line = line.strip_prefix("-h, ").or_else(|| line.strip_prefix("-V, ")).unwrap_or(line);
            line.starts_with("--").then(|| line.split([' ', ',', '=']).next().unwrap())
        });
        let flags: Vec<&str> = flags.filter(|flag| !["--help", "--version"].contains(flag)).collect();
        assert!(flags.len() > 15, "{flags:?}");
        let is_noted = |flag: &&&str| {
            notes.match_indices(**flag).any(|(at, _)| {
                !notes[at + flag.len()..]
                    .starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-')
            })
        };
        let missing: Vec<&&str> = flags.iter().filter(|flag| !is_noted(flag)).collect();
        assert!(missing.is_empty(), "chorus {command}: {missing:?}");
    }
}

/// Bash itself completes, where it is there.
#[test]
fn a_shell_completes_commands_and_flags() {
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("chorus.bash");
    fs::write(&script, printed(&["completions", "bash"], &[])).unwrap();
    let complete = |words: &str, place: usize| {
        let line = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD={place}; _chorus chorus \"${{COMP_WORDS[{place}]}}\" \
             \"${{COMP_WORDS[{}]}}\"; echo \"${{COMPREPLY[@]}}\"",
            script.display(),
            place - 1
        );
        let output = Command::new("bash").args(["-c", &line]).output().expect("bash is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("chorus conf", 1), "config");
    assert_eq!(complete("chorus config ch", 2), "check");
    assert_eq!(complete("chorus worker --chunk", 2), "--chunk-tokens");
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        assert!(printed(&["completions", shell], &[]).contains("chorus"), "{shell}");
    }
}
