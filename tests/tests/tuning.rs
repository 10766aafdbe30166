//! `chorus tune` and `chorus report` on the demo ensemble: what they learn holds for the running ensemble, and what can go wrong
//! says so.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};

use chorus_tests::{Chorus, Ensemble, PATIENT};
use serde_json::Value;
use tempfile::TempDir;

/// A demo ensemble and a text that it has written itself, which is as good as any that nobody was trained on.
struct Stage {
    ensemble: Ensemble,
    folder: TempDir,
    address: String,
}

impl Stage {
    async fn new(tokens: u32) -> Self {
        let ensemble = Ensemble::demo(PATIENT).await;
        let address = ensemble.address.to_string();
        let stage = Self { ensemble, folder: TempDir::new().unwrap(), address };
        let max_tokens = tokens.to_string();
        let text = stage.run(&["generate", "ROMEO:\n", "--seed", "5", "--max-tokens", &max_tokens]);
        fs::write(stage.path("text.txt"), text).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command against the ensemble, in the folder of the text.
    fn ends(&self, arguments: &[&str]) -> chorus_tests::Ended {
        let mut command = std::process::Command::new(chorus_tests::binary());
        command.current_dir(self.folder.path()).args(arguments).args(["--addr", &self.address]);
        Chorus::start_command(command, std::process::Stdio::null()).wait()
    }

    fn run(&self, arguments: &[&str]) -> String {
        let ended = self.ends(arguments);
        assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
        ended.stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The failure of a command, which leaves `weights.toml` as it was.
    fn fails(&self, arguments: &[&str]) -> String {
        let before = fs::read(self.path("weights.toml")).ok();
        let ended = self.ends(arguments);
        assert!(!ended.status.success(), "{arguments:?}: {}", ended.stdout);
        assert_eq!(fs::read(self.path("weights.toml")).ok(), before, "{arguments:?}");
        ended.stderr
    }

    /// Until so many members of the ensemble at the stage's address are up.
    async fn until_up(&self, members: usize) {
        let up = || {
            let status = self.json(&["status"]);
            status["members"].as_array().unwrap().iter().filter(|member| member["health"] == "up").count()
        };
        while up() != members {
            tokio::task::yield_now().await;
        }
    }

    /// Tokens that the members have read for the plan of that name.
    fn read_tokens(&self, plan: &str) -> u64 {
        let status = self.json(&["status"]);
        let members = status["members"].as_array().unwrap().iter();
        let of_plan = members.flat_map(|member| member["traffic"].as_array().unwrap().clone());
        let of_plan = of_plan.filter(|traffic| traffic["plan"] == plan);
        of_plan.map(|traffic| traffic["tokens"].as_u64().unwrap()).sum()
    }
}

fn weights(learned: &Value) -> Vec<(String, f64)> {
    let weights = learned["weights"].as_object().unwrap().iter();
    weights.map(|(name, weight)| (name.clone(), weight.as_f64().unwrap())).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// `--weight NAME=W` of all members.
fn flags(weights: &[(String, f64)]) -> Vec<String> {
    weights.iter().flat_map(|(name, weight)| ["--weight".to_owned(), format!("{name}={weight}")]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_finds_the_weights_that_the_running_ensemble_does_best_with() {
    let mut stage = Stage::new(700).await;
    let em = stage.json(&["tune", "text.txt"]);
    let asked = stage.read_tokens("targets");
    assert!(asked > 0);
    let gradient = stage.json(&["tune", "text.txt", "--method", "gradient"]);
    let bayes = stage.json(&["tune", "text.txt", "--method", "bayes"]);
    let folds = stage.json(&["tune", "text.txt", "--method", "cv", "--folds", "4"]);
    assert_eq!(stage.read_tokens("targets"), asked, "what was said is kept");
    for ((name, one), (other_name, other)) in weights(&em).iter().zip(weights(&gradient)) {
        assert!(*name == other_name && (one - other).abs() < 1e-4, "{name}: {one} {other}");
    }
    let learned = |found: &Value| number(&found["perplexity"]["learned"]);
    assert!(learned(&bayes) / learned(&em) < 1.001, "{} {}", learned(&bayes), learned(&em));
    assert!(learned(&em) <= number(&em["perplexity"]["equal"]));
    assert_eq!(folds["folds"]["folds"].as_array().unwrap().len(), 4);
    assert!(
        weights(&folds).iter().zip(weights(&em)).all(|((_, one), (_, other))| (one - other).abs() < 1e-12)
    );

    let vote = stage.json(&["tune", "text.txt", "--rule", "threshold_vote"]);

    // The text is one part, so a scoring of it is the same.
    let flags = flags(&weights(&em));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let scored = stage.json(&[&["score", "text.txt"], &flags[..]].concat());
    assert!((number(&scored["perplexity"]) / learned(&em) - 1.0).abs() < 1e-9, "{scored}");

    // Another coordinator over the same workers, with the weights; and then without a member.
    let file = stage.path("weights.toml");
    let expected = |found: &Value, names: &[&str], value: &str| {
        let sets = found["sets"].as_array().unwrap();
        number(&sets.iter().find(|set| set["members"] == serde_json::json!(names)).unwrap()[value])
    };
    let members = stage
        .ensemble
        .members
        .iter()
        .map(|member| format!("--member={}=http://{}", member.name, member.address));
    let mut words = vec!["coordinator".to_owned(), "--listen=127.0.0.1:0".to_owned()];
    words.extend(members.chain([format!("--weights={}", file.display())]));
    let mut tuned = Chorus::start(&words);
    stage.address = tuned.listening().to_string();
    stage.until_up(3).await;
    assert_eq!(stage.json(&["status"])["learned"]["in_force"], true);
    let scored = stage.json(&["score", "text.txt"]);
    assert!((number(&scored["perplexity"]) / learned(&em) - 1.0).abs() < 1e-9, "{scored}");
    assert!(scored.get("expectation").is_none());
    stage.ensemble.members[1].kill();
    stage.until_up(2).await;
    let scored = stage.json(&["score", "text.txt"]);
    let left = expected(&em, &["alto", "tenor"], "perplexity");
    assert!(
        (number(&scored["perplexity"]) / left - 1.0).abs() < 1e-9,
        "the text is the one that was tuned on: {scored}"
    );
    assert_eq!(scored["expectation"]["perplexity"], left);
    assert!((number(&scored["expectation"]["perplexity_of_all"]) / learned(&em) - 1.0).abs() < 1e-12);
    let scored = stage.json(&["score", "text.txt", "--rule", "threshold_vote"]);
    let accuracy = number(&scored["votes"]["winners"]) / number(&scored["tokens"]);
    assert!((expected(&vote, &["alto", "tenor"], "accuracy") - accuracy).abs() < 1e-12, "{scored}");
    assert_eq!(scored["expectation"]["accuracy"], accuracy);
    assert_eq!(scored["expectation"]["accuracy_of_all"], vote["threshold"]["accuracy"]);
    let told = stage.ends(&["generate", "JULIET:", "--max-tokens", "3"]);
    assert!(told.stderr.contains("is expected instead of"), "{}", told.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vote_and_exponents_are_as_good_as_they_say() {
    let stage = Stage::new(400).await;
    let vote = stage.json(&["tune", "text.txt", "--rule", "threshold_vote"]);
    let curve = vote["threshold"]["curve"].as_array().unwrap();
    for point in curve.iter().step_by(7) {
        let threshold = point["threshold"].to_string();
        let rule = ["--rule", "threshold_vote", "--threshold", &threshold];
        let scored = stage.json(&[&["score", "text.txt"], &rule[..]].concat());
        let found = number(&scored["votes"]["winners"]) / number(&scored["tokens"]);
        assert!((found - number(&point["accuracy"])).abs() < 1e-12, "{threshold}: {found} {point}");
    }
    let weighted = stage.json(&["tune", "text.txt", "--rule", "threshold_vote", "--vote-weights"]);
    assert!(number(&weighted["threshold"]["accuracy"]) >= number(&vote["threshold"]["accuracy"]));

    let exponents = stage.json(&["tune", "text.txt", "--rule", "log_linear"]);
    let flags = flags(&weights(&exponents));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let scored = stage.json(&[&["score", "text.txt", "--rule", "log_linear"], &flags[..]].concat());
    let learned = number(&exponents["perplexity"]["learned"]);
    assert!((number(&scored["perplexity"]) / learned - 1.0).abs() < 1e-5, "{scored} {learned}");

    let kept = fs::read_to_string(stage.path("weights.toml")).unwrap();
    for rule in ["[rules.threshold_vote]", "[rules.log_linear]"] {
        assert!(kept.contains(rule), "{kept}");
    }
    stage.run(&["report", "text.txt", "--out", "report.html", "--folds", "3"]);
    let page = fs::read_to_string(stage.path("report.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 7);
    for part in ["alto", "bass", "tenor", "log linear", "text.txt"] {
        assert!(page.contains(part), "{part}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_t_be_learned_from_or_written_is_said_and_nothing_is_lost() {
    let mut stage = Stage::new(120).await;
    fs::write(stage.path("empty.txt"), "").unwrap();
    fs::write(stage.path("short.txt"), "a").unwrap();
    fs::write(stage.path("bytes.txt"), [0xff]).unwrap();
    stage.run(&["tune", "text.txt"]);
    for (arguments, said) in [
        (&["tune", "empty.txt"][..], "empty.txt has no token: there is nothing to learn from"),
        (&["tune", "short.txt", "--method", "cv"], "short.txt can't be cut into folds"),
        (&["tune", "bytes.txt"], "bytes.txt is not UTF-8 text"),
        (&["tune", "nowhere.txt"], "can't read nowhere.txt"),
        (&["tune", "text.txt", "--out", "nowhere/weights.toml"], "can't write nowhere/weights.toml"),
        (
            &["tune", "text.txt", "--out", "text.txt"],
            "text.txt is no file of weights; --replace overwrites it",
        ),
        (&["tune", "text.txt", "--cache", "text.txt"], "can't make text.txt"),
        (&["report", "text.txt", "--out", "nowhere/report.html"], "can't write nowhere/report.html"),
        (&["report", "text.txt", "--folds", "1"], "--folds is 1; allowed: at least 2"),
    ] {
        let stderr = stage.fails(arguments);
        assert!(stderr.contains(said), "{arguments:?}: {stderr}");
    }
    // A damaged part is named, and the rest of the cache is left alone.
    let parts = part_files(&stage.path("chorus-cache"));
    parts.iter().for_each(|part| fs::write(part, "no tensors").unwrap());
    let stderr = stage.fails(&["tune", "text.txt"]);
    assert!(stderr.contains("is damaged; remove it"), "{stderr}");
    parts.iter().for_each(|part| fs::remove_file(part).unwrap());
    stage.run(&["tune", "text.txt"]);

    // The same workers under other names are another ensemble.
    let members = stage.ensemble.members.iter().zip(["one", "two", "three"]);
    let members = members.map(|(member, name)| format!("--member={name}=http://{}", member.address));
    let words = ["coordinator".to_owned(), "--listen=127.0.0.1:0".to_owned()];
    let mut other = Chorus::start(words.into_iter().chain(members));
    stage.address = other.listening().to_string();
    stage.until_up(3).await;
    let stderr = stage.fails(&["tune", "text.txt"]);
    assert!(stderr.contains("weights.toml is of another ensemble: alto is no member any more"), "{stderr}");
    stage.run(&["tune", "text.txt", "--replace"]);
    assert!(fs::read_to_string(stage.path("weights.toml")).unwrap().contains("three"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_which_a_member_is_lost_stops_or_goes_on_without_what_is_missing() {
    let mut stage = Stage::new(1500).await;
    let tune = ["tune", "text.txt", "--part-tokens", "16", "--context-tokens", "8"];
    let on_change = |what: &'static str| [&tune[..], &["--on-change", what]].concat();
    let mut command = std::process::Command::new(chorus_tests::binary());
    command.current_dir(stage.folder.path()).args(on_change("continue")).args(["--addr", &stage.address]);
    let running = Chorus::start_command(command, std::process::Stdio::null());
    let cache = stage.path("chorus-cache");
    while part_files(&cache).len() < 3 {
        tokio::task::yield_now().await;
    }
    stage.ensemble.members[1].kill();
    let ended = running.wait();
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("tokens are left out: ") && ended.stderr.contains("bass"),
        "{}",
        ended.stderr
    );
    let kept = part_files(&cache).len();
    let before = fs::read(stage.path("weights.toml")).unwrap();
    let stderr = stage.fails(&on_change("stop"));
    assert!(
        stderr.contains("the ensemble changed while it was asked: ") && stderr.contains("bass"),
        "{stderr}"
    );
    assert_eq!(fs::read(stage.path("weights.toml")).unwrap(), before);
    assert_eq!(part_files(&cache).len(), kept, "what was said before is kept");
    stage.ensemble.members[1].start_again();
    stage.ensemble.until_up(3).await;
    stage.run(&on_change("stop"));
    assert!(part_files(&cache).len() > kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_removed_ends_a_run_or_what_is_left_is_left_out() {
    let mut stage = Stage::new(1500).await;
    let workers = stage.ensemble.members.iter();
    let members = workers.map(|member| format!("--member={}=http://{}", member.name, member.address));
    let words = ["coordinator", "--listen=127.0.0.1:0", "--admin=127.0.0.1:0"].map(str::to_owned);
    let members: Vec<String> = words.into_iter().chain(members).collect();
    for (on_change, ended_well, said) in [
        ("stop", false, "the ensemble changed while it was asked: bass is no member any more"),
        ("continue", true, "tokens are left out: bass is no member any more"),
    ] {
        let mut coordinator = Chorus::start(&members);
        let admin = coordinator.read_until("line that says where it is administered", |line| {
            line.strip_prefix("admin listening on ").map(|address| format!("--admin={address}"))
        });
        stage.address = coordinator.listening().to_string();
        stage.until_up(3).await;
        let cache = stage.path(on_change);
        let mut command = std::process::Command::new(chorus_tests::binary());
        command.current_dir(stage.folder.path()).args(["tune", "text.txt", "--part-tokens", "16"]);
        command.args(["--context-tokens", "8", "--on-change", on_change, "--addr", &stage.address]);
        command.arg("--cache").arg(&cache);
        let running = Chorus::start_command(command, std::process::Stdio::null());
        while part_files(&cache).len() < 3 {
            tokio::task::yield_now().await;
        }
        let removed = Chorus::run(["members", "remove", "bass", &admin]);
        assert!(removed.status.success(), "{}", removed.stderr);
        let ended = running.wait();
        assert_eq!(ended.status.success(), ended_well, "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
        assert_eq!(stage.path("weights.toml").exists(), ended_well);
        assert!(part_files(&cache).len() >= 3, "what was said before is kept");
    }
}

fn part_files(cache: &Path) -> Vec<PathBuf> {
    let Ok(folders) = fs::read_dir(cache) else {
        return Vec::new();
    };
    let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
    let files = files.map(|file| file.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "safetensors")).collect()
}
