//! What is watched: alerts, their tests, the dashboard. Tools that a machine may lack are used where they are.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use chorus_tests::binary;
use serde_json::Value;
use tempfile::TempDir;

use crate::sources::{documents, path, read};

/// Runs a tool that has to pass, where it is installed; what it said.
fn passes(tool: &str, arguments: &[&str], folder: &Path) -> String {
    match Command::new(tool).args(arguments).current_dir(folder).output() {
        Ok(output) => {
            let said =
                [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            assert!(output.status.success(), "{tool} {arguments:?}: {}", said.concat());
            said.concat()
        }
        Err(_) => {
            chorus_tests::skipped(tool, "it is not installed");
            String::new()
        }
    }
}

/// All expressions of the dashboard's panels and annotations.
fn shown() -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("expr").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| collect(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let dashboard: Value = serde_json::from_str(&read("grafana/chorus.json")).unwrap();
    let mut found = Vec::new();
    collect(&dashboard, &mut found);
    assert!(found.len() > 50, "only {} expressions", found.len());
    found
}

fn rules() -> Vec<Value> {
    let groups = documents("prometheus/alerts.yml").remove(0)["groups"].as_array().unwrap().clone();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

#[test]
fn every_alert_has_a_case_and_says_what_it_is_about() {
    let cases = read("prometheus/alerts_test.yml");
    let alerts: Vec<Value> = rules().into_iter().filter(|rule| rule.get("alert").is_some()).collect();
    assert!(alerts.len() > 15);
    for alert in alerts {
        let name = alert["alert"].as_str().unwrap();
        assert!(cases.contains(name), "{name} has no case in alerts_test.yml");
        assert!(alert["annotations"]["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name}");
        let severity = alert["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
    }
}

#[test]
fn alerts_pass_their_cases_and_the_dashboard_asks_what_prometheus_understands() {
    passes("promtool", &["check", "config", "prometheus.yml"], &path("prometheus"));
    passes("promtool", &["test", "rules", "alerts_test.yml"], &path("prometheus"));
    // Expressions are checked as rules; a variable of Grafana stands for a duration.
    let rules: Vec<Value> = shown()
        .iter()
        .enumerate()
        .map(|(index, expression)| {
            let expression = expression.replace("$__rate_interval", "5m");
            serde_json::json!({"record": format!("panel:{index}"), "expr": expression})
        })
        .collect();
    let folder = TempDir::new().unwrap();
    let groups = serde_json::json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(folder.path().join("dashboard.yml"), groups.to_string()).unwrap();
    passes("promtool", &["check", "rules", "dashboard.yml"], folder.path());
}

#[test]
fn units_are_what_systemd_understands_and_are_confined() {
    let folder = TempDir::new().unwrap();
    // What some members need is said of one.
    let drop_ins = folder.path().join("chorus-worker@cuda.service.d");
    fs::create_dir(&drop_ins).unwrap();
    for file in ["chorus-worker-cuda.conf", "chorus-tls.conf"] {
        fs::copy(path(&format!("systemd/{file}")), drop_ins.join(file)).unwrap();
    }
    for (file, unit) in [
        ("chorus-worker@.service", "chorus-worker@alto.service"),
        ("chorus-worker@.service", "chorus-worker@cuda.service"),
        ("chorus-coordinator.service", "chorus-coordinator.service"),
    ] {
        // The command has to be there.
        let text = read(&format!("systemd/{file}"));
        let text = text.replace("/usr/local/bin/chorus", binary().to_str().unwrap());
        fs::write(folder.path().join(file), text).unwrap();
        let unit = format!("./{unit}");
        let said = passes("systemd-analyze", &["verify", "--man=no", &unit], folder.path());
        // It passes what it does not know.
        assert!(!said.contains("chorus"), "{said}");
        let file = format!("./{file}");
        let arguments = ["security", "--offline=true", "--threshold=20", "--no-pager", &file];
        passes("systemd-analyze", &arguments, folder.path());
    }
}

/// Names of metrics in a text, without what histograms add to theirs.
fn metrics(text: &str) -> BTreeSet<String> {
    let words =
        text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'));
    let of_chorus = words.filter(|word| word.starts_with("chorus_") && !word.ends_with('_'));
    of_chorus
        .map(|word| ["_bucket", "_sum", "_count"].iter().fold(word, |word, end| word.trim_end_matches(end)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn whatever_is_watched_is_served() {
    let mut served = BTreeSet::new();
    for folder in ["coordinator/src", "worker/src", "cli/src", "net/src"] {
        let mut folders = vec![path("..").join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    served.extend(metrics(&fs::read_to_string(path).unwrap()));
                }
            }
        }
    }
    let documented = metrics(&read("README.md"));
    let watched = ["prometheus/alerts.yml", "grafana/chorus.json", "kubernetes/prometheus-adapter.yaml"];
    let watched: BTreeSet<String> = watched.iter().flat_map(|file| metrics(&read(file))).collect();
    assert!(watched.len() > 30, "{watched:?}");
    for name in watched {
        assert!(served.contains(&name), "{name} is watched, and nobody serves it");
        assert!(documented.contains(&name), "{name} is not in deploy/README.md");
    }
}
