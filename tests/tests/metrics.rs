//! Metrics: what coordinator and worker really say of themselves after some work, against the tables in `deploy/README.md`, and
//! against a reader of the format that others wrote.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use chorus_proto::v1::{
    BeamOptions, ClassifyRequest, DistributionsRequest, FusionOptions, GenerateRequest, Label,
    PredictRequest, RankCandidate, RankRequest, Rule, SamplingOptions, TokenizerRequest,
};
use chorus_tests::{
    Chorus, Ensemble, MemberProcess, PATIENT,
    clients::{EnsembleClient, generate, members_up, score_text, text_input, until},
    metrics::{Family, families, get, metrics_listening, text, total},
    models, skipped,
};
use tonic::transport::Channel;

/// One line of a table.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
    unit: String,
}

/// A coordinator over one member whose worker tells its metrics, too.
struct Observed {
    _worker: MemberProcess,
    worker_metrics: SocketAddr,
    _coordinator: Chorus,
    coordinator_metrics: SocketAddr,
    client: EnsembleClient,
}

/// A worker of alto, and where it says what it counts.
fn observed_worker(device: &str) -> (MemberProcess, SocketAddr) {
    let model = models::demo("alto");
    let mut worker = Chorus::start([
        "worker".as_ref(),
        "--model".as_ref(),
        model.as_os_str(),
        "--metrics=127.0.0.1:0".as_ref(),
        "--device".as_ref(),
        device.as_ref(),
    ]);
    let metrics = metrics_listening(&mut worker);
    (MemberProcess::of("alto", &model, worker), metrics)
}

impl Observed {
    async fn start() -> Self {
        // A worker on a device counts all that others do, and the device's memory.
        let (worker, worker_metrics) = observed_worker("emulated");
        let member = format!("--member=alto=http://{}", worker.address);
        let flags = ["coordinator", &member, "--metrics=127.0.0.1:0", "--listen=127.0.0.1:0"];
        let mut coordinator = Chorus::start(flags);
        let coordinator_metrics = metrics_listening(&mut coordinator);
        let channel = Channel::from_shared(format!("http://{}", coordinator.listening())).unwrap();
        let client = EnsembleClient::new(channel.connect().await.unwrap());
        until("alto is up", || {
            let mut client = client.clone();
            async move { members_up(&mut client).await == 1 }
        })
        .await;
        let (_worker, _coordinator) = (worker, coordinator);
        Self { _worker, worker_metrics, _coordinator, coordinator_metrics, client }
    }

    /// Something of everything that is counted.
    async fn work(&mut self) {
        let prompt = text_input("ROMEO:\n");
        let sampling =
            |temperature| Some(SamplingOptions { temperature, seed: Some(7), ..Default::default() });
        let request = |temperature, log_probs| GenerateRequest {
            prompt: prompt.clone(),
            max_tokens: Some(20),
            sampling: sampling(temperature),
            log_probs,
            ..Default::default()
        };
        generate(&mut self.client, request(None, true)).await.unwrap();
        generate(&mut self.client, request(None, false)).await.unwrap();
        self.client.complete(request(Some(0.0), false)).await.unwrap();
        score_text(&mut self.client, "To be, or not to be").await.unwrap();
        let fusion = FusionOptions { rule: Rule::ThresholdVote.into(), ..Default::default() };
        let predict = PredictRequest { prefix: prompt.clone(), fusion: Some(fusion), ..Default::default() };
        self.client.predict(predict).await.unwrap();
        let distributions = DistributionsRequest { input: prompt.clone(), ..Default::default() };
        let mut distributions = self.client.distributions(distributions).await.unwrap().into_inner();
        while distributions.message().await.unwrap().is_some() {}
        let mut tokenizer = self.client.tokenizer(TokenizerRequest {}).await.unwrap().into_inner();
        while tokenizer.message().await.unwrap().is_some() {}
        self.client.complete(request(Some(-1.0), false)).await.unwrap_err();
        let search = GenerateRequest {
            prompt: prompt.clone(),
            max_tokens: Some(5),
            beam: Some(BeamOptions { size: 3, ..Default::default() }),
            ..Default::default()
        };
        self.client.complete(search).await.unwrap();
        let candidate = |text| RankCandidate { continuation: text_input(text), score: None };
        let candidates = ["love thee", "love thee not", "am dead"].map(candidate).to_vec();
        let rank = RankRequest { context: prompt, candidates, ..Default::default() };
        self.client.rank(rank).await.unwrap();
        let label = |name: &str| Label { name: name.to_owned(), template: format!("{name}: {{text}}") };
        let labels = ["KING", "QUEEN"].map(label).to_vec();
        let classify = ClassifyRequest { text: "I am thy father".to_owned(), labels, ..Default::default() };
        self.client.classify(classify).await.unwrap();
    }
}

fn readme() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/README.md")).unwrap()
}

/// The table under this sentence.
fn documented(sentence: &str) -> BTreeMap<String, Documented> {
    let readme = readme();
    let (_, after) = readme.split_once(sentence).unwrap_or_else(|| panic!("no {sentence:?}"));
    let rows =
        after.lines().skip_while(|line| !line.starts_with("| `")).take_while(|line| line.starts_with("| `"));
    let unquoted = |cell: &str| cell.trim().trim_matches('`').to_owned();
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, unit, meaning] = cells[..] else { panic!("not five cells: {row}") };
        assert!(!meaning.is_empty(), "{row}");
        let labels = labels.split(',').map(unquoted).filter(|label| !label.is_empty()).collect();
        (unquoted(name), Documented { kind: unquoted(kind), labels, unit: unquoted(unit) })
    })
    .collect()
}

fn exported(families: &BTreeMap<String, Family>) -> BTreeMap<String, Documented> {
    let documented = |(name, family): (&String, &Family)| {
        assert!(!family.help.is_empty(), "{name} does not say what it is");
        let bare = name.strip_suffix("_total").unwrap_or(name);
        let unit = match bare.rsplit('_').next() {
            Some("seconds") => "s",
            Some("bytes") => "bytes",
            _ => "",
        };
        let is_counter = name.ends_with("_total");
        assert_eq!(is_counter, family.kind == "counter", "{name} is a {}", family.kind);
        let (kind, labels, unit) = (family.kind.clone(), family.labels.clone(), unit.to_owned());
        (name.clone(), Documented { kind, labels, unit })
    };
    families.iter().map(documented).collect()
}

/// What a histogram's samples say has to be possible.
fn assert_is_histogram(name: &str, family: &Family) {
    let count = |suffix: &str, of: &str| -> f64 {
        let samples = family.samples.iter();
        samples
            .filter(|(sample, _)| sample.starts_with(&format!("{name}{suffix}")) && sample.contains(of))
            .map(|(_, value)| value)
            .sum()
    };
    assert!(count("_bucket", "le=\"+Inf\"") == count("_count", ""), "{name}: {family:?}");
    let buckets = family.samples.keys().filter(|sample| sample.contains("_bucket")).count();
    assert!(buckets > 5, "{name} is no summary");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tables_in_the_readme_are_what_is_exported_and_others_can_read_it() {
    let mut observed = Observed::start().await;
    observed.work().await;
    let (coordinator, worker) =
        (text(observed.coordinator_metrics).await, text(observed.worker_metrics).await);
    for (sentence, text) in [("A coordinator's:", &coordinator), ("A worker's:", &worker)] {
        let families = families(text);
        let (documented, exported) = (documented(sentence), exported(&families));
        let names = |of: &BTreeMap<String, Documented>| of.keys().cloned().collect::<BTreeSet<_>>();
        let (told, real) = (names(&documented), names(&exported));
        assert!(told.is_subset(&real), "only in the table: {:?}", told.difference(&real));
        assert!(real.is_subset(&told), "not in the table: {:?}", real.difference(&told));
        for (name, documented) in &documented {
            assert_eq!(documented, &exported[name], "{name}");
        }
        for (name, family) in families.iter().filter(|(_, family)| family.kind == "histogram") {
            assert_is_histogram(name, family);
        }
        read_by_others(text, families.len());
    }
    let other = get(observed.coordinator_metrics, "/").await;
    assert!(other.starts_with("HTTP/1.1 404"), "{other}");
    assert_counts(&families(&coordinator), &families(&worker));
}

/// A generation of a member with two replicas leaves snapshots, of which both sides know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_counted_where_they_are_made_and_where_they_are_kept() {
    let (workers, addresses): (Vec<_>, Vec<_>) =
        [observed_worker("cpu"), observed_worker("cpu")].into_iter().unzip();
    let ensemble = Ensemble::over(workers, PATIENT);
    ensemble.until_replicas_up(2).await;
    let mut client = ensemble.client().await;
    let request =
        GenerateRequest { prompt: text_input("ROMEO:\n"), max_tokens: Some(80), ..Default::default() };
    client.complete(request).await.unwrap();
    let mut made = 0.0;
    for address in addresses {
        made += families(&text(address).await)["chorus_worker_snapshot_bytes"].samples["chorus_worker_snapshot_bytes_count"];
    }
    let kept = &families(&text(ensemble.metrics).await)["chorus_member_snapshot_bytes"].samples;
    let kept = |what: &str| kept[&format!("chorus_member_snapshot_bytes_{what}{{member=\"alto\"}}")];
    assert!(kept("count") >= 3.0 && made >= kept("count"), "{made} made, {} kept", kept("count"));
    // The state of an LSTM: two vectors of its layers' width, as f32.
    assert!(kept("sum") > 1000.0 * kept("count"), "{} bytes", kept("sum"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_to_spare_are_those_that_the_quorum_can_lose() {
    let mut ensemble = Ensemble::demo("[quorum]\nmembers = 2\n").await;
    assert_eq!(total(ensemble.metrics, "chorus_members_to_spare").await, 1.0);
    ensemble.members[0].kill();
    ensemble.until_up(2).await;
    assert_eq!(total(ensemble.metrics, "chorus_members_to_spare").await, 0.0);
}

/// Some numbers that are known.
fn assert_counts(coordinator: &BTreeMap<String, Family>, worker: &BTreeMap<String, Family>) {
    let of = |families: &BTreeMap<String, Family>, sample: &str| {
        let name = sample.split('{').next().unwrap().trim_end_matches("_count");
        families[name]
            .samples
            .get(sample)
            .copied()
            .unwrap_or_else(|| panic!("{sample} in {:?}", families[name]))
    };
    for (sample, value) in [
        ("chorus_request_seconds_count{method=\"generate\",code=\"ok\"}", 2.0),
        ("chorus_request_seconds_count{method=\"complete\",code=\"ok\"}", 2.0),
        ("chorus_request_seconds_count{method=\"rank\",code=\"ok\"}", 1.0),
        ("chorus_request_seconds_count{method=\"classify\",code=\"ok\"}", 1.0),
        ("chorus_answers_total{method=\"rank\"}", 1.0),
        ("chorus_answers_total{method=\"classify\"}", 1.0),
        ("chorus_request_seconds_count{method=\"complete\",code=\"invalid_argument\"}", 1.0),
        ("chorus_request_seconds_count{method=\"tokenizer\",code=\"ok\"}", 1.0),
        ("chorus_generated_tokens_total{plan=\"drawn\"}", 20.0),
        ("chorus_step_seconds_count{plan=\"drawn\"}", 20.0),
        ("chorus_first_token_seconds_count", 4.0),
        ("chorus_answers_total{method=\"generate\"}", 2.0),
        ("chorus_degraded_answers_total{method=\"generate\"}", 0.0),
        ("chorus_member_replicas_up{member=\"alto\"}", 1.0),
        ("chorus_member_feeds_in_flight{member=\"alto\"}", 0.0),
        ("chorus_client_connections", 1.0),
        ("chorus_serving", 1.0),
        ("chorus_config_revision", 1.0),
    ] {
        assert_eq!(of(coordinator, sample), value, "{sample}");
    }
    let tokens: f64 = coordinator["chorus_member_tokens_total"].samples.values().sum();
    assert_eq!(
        of(worker, "chorus_worker_tokens_total"),
        tokens,
        "every token that was fed was computed once"
    );
    let feeds: f64 = worker["chorus_worker_feeds_total"].samples.values().sum();
    let rows = of(worker, "chorus_worker_batch_rows_count");
    assert!(rows >= 60.0 && feeds >= rows, "{feeds} feeds in {rows} forwards");
    assert_eq!(of(worker, "chorus_worker_forward_seconds_count"), rows);
    assert_eq!(of(worker, "chorus_worker_feeds_waiting"), 0.0);
    assert_eq!((of(worker, "chorus_worker_streams"), of(worker, "chorus_worker_device_sound")), (1.0, 1.0));
    // Both count what is encoded, so they agree; the coordinator counts feeds only.
    let sent: f64 = coordinator["chorus_member_sent_bytes_total"].samples.values().sum();
    let received = of(worker, "chorus_worker_received_bytes_total");
    assert!(received >= sent && sent > 0.0, "{sent} bytes sent, {received} received");
    let answers: f64 = coordinator["chorus_member_received_bytes_total"].samples.values().sum();
    assert_eq!(answers, of(worker, "chorus_worker_sent_bytes_total"));
}

/// Reads all families with the parser of Prometheus' own client for Python, and counts them.
const READ: &str = "
import sys
from prometheus_client.parser import text_string_to_metric_families
families = list(text_string_to_metric_families(sys.stdin.read()))
for family in families:
    assert family.documentation and family.type in ('counter', 'gauge', 'histogram'), family
    counts = {}
    for sample in family.samples:
        if sample.name.endswith('_bucket'):
            key = tuple(sorted((k, v) for k, v in sample.labels.items() if k != 'le'))
            bound = float(sample.labels['le'])
            last_bound, last = counts.get(key, (float('-inf'), 0))
            assert bound > last_bound and sample.value >= last, sample
            counts[key] = (bound, sample.value)
    for key, (bound, value) in counts.items():
        assert bound == float('inf'), family
        count = [s.value for s in family.samples if s.name.endswith('_count') and tuple(sorted(s.labels.items())) == key]
        assert count == [value], family
print(len(families))
";

/// Has the format checked by what others wrote; says so where that can't be had.
fn read_by_others(text: &str, families: usize) {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => {
            skipped("prometheus-client reads the metrics", &reason);
            return;
        }
    };
    let mut reader = Command::new(python)
        .args(["-c", READ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    reader.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = reader.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), families.to_string());
}

/// A Python that has prometheus-client, in a virtual environment among what cargo builds.
fn python() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let target = test.ancestors().nth(3).ok_or("no target folder")?;
    let environment = target.join("prometheus-client");
    let python = environment.join("bin/python");
    let has_it = || {
        let import = Command::new(&python).args(["-c", "import prometheus_client"]).output();
        import.is_ok_and(|output| output.status.success())
    };
    if !has_it() {
        let folder = environment.to_string_lossy().into_owned();
        run(Command::new("python3").args(["-m", "venv", &folder]))?;
        let install = ["-m", "pip", "install", "--quiet", "--retries", "1", "prometheus-client"];
        run(Command::new(&python).args(install))?;
    }
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default()
    ))
}
