//! Callers that generate all the time, and what they notice. Knows nothing about faults.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use chorus_load::measure::Latencies;
use chorus_net::Wire;
use chorus_proto::v1::{
    GenerateReply, GenerateRequest, Input, MissingMember, SamplingOptions, ensemble_client::EnsembleClient,
    input,
};
use futures::future::try_join_all;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::Status;

use crate::client::{Address, connect};

const PROMPT: &str = "ROMEO:\n";

/// What callers noticed in some time.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// With all members, and yet not the text that was known.
    pub(super) wrong: u64,
    pub(super) tokens: u64,
    /// Without all members.
    pub(super) degraded_tokens: u64,
    pub(super) longest_gap: Duration,
    /// Between two tokens of a stream.
    pub(super) gaps: Latencies,
    /// The first member that was missing from a token, and why.
    pub(super) first_missing: Option<String>,
    /// The first failure, in the server's words.
    pub(super) first_failure: Option<String>,
}

/// Tasks that generate until they are stopped.
pub(super) struct Callers {
    notebook: Arc<Notebook>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Notebook(Mutex<Noticed>);

/// One generation again and again.
struct Caller {
    client: EnsembleClient<Wire>,
    request: GenerateRequest,
    expected: String,
    notebook: Arc<Notebook>,
}

impl Callers {
    /// Generates every text once, then starts the callers.
    ///
    /// # Errors
    /// The ensemble can't be reached, or fails although nothing was done to it.
    pub(super) async fn start(address: &Address, streams: usize, tokens: u32) -> anyhow::Result<Self> {
        let client = connect(address).await?;
        let requests: Vec<GenerateRequest> = (0..streams).map(|seed| request(seed as u64, tokens)).collect();
        let texts = requests.iter().map(|request| {
            let (mut client, request) = (client.clone(), request.clone());
            async move { text(&mut client, request).await }
        });
        let texts =
            try_join_all(texts).await.context("the ensemble fails although nothing was done to it")?;
        let notebook = Arc::new(Notebook::default());
        let mut tasks = JoinSet::new();
        for (request, expected) in requests.into_iter().zip(texts) {
            let caller =
                Caller { client: client.clone(), request, expected, notebook: Arc::clone(&notebook) };
            tasks.spawn(caller.run());
        }
        Ok(Self { notebook, tasks })
    }

    /// Forgets what was noticed until now.
    pub(super) fn begin(&self) {
        *self.notebook.open() = Noticed::default();
    }

    /// What was noticed since the beginning.
    pub(super) fn end(&self) -> Noticed {
        std::mem::take(&mut *self.notebook.open())
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Caller {
    async fn run(mut self) {
        loop {
            let outcome = self.generate().await;
            let failed = outcome.is_err();
            self.notebook.note(&outcome, &self.expected);
            if failed {
                // As a client with a retry policy does.
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    /// The text, and whether all members took part in all of it.
    async fn generate(&mut self) -> Result<(String, bool), Status> {
        let mut stream = self.client.generate(self.request.clone()).await?.into_inner();
        let (mut text, mut is_whole, mut last) = (String::new(), true, Instant::now());
        while let Some(reply) = stream.message().await? {
            text.push_str(&reply.text);
            let missing = reply.participation.as_ref().and_then(|who| who.missing.first());
            is_whole &= missing.is_none();
            if reply.token.is_some() {
                self.notebook.token(last.elapsed(), missing);
                last = Instant::now();
            }
        }
        Ok((text, is_whole))
    }
}

impl Notebook {
    fn open(&self) -> MutexGuard<'_, Noticed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn token(&self, gap: Duration, missing: Option<&MissingMember>) {
        let mut noticed = self.open();
        noticed.tokens += 1;
        if let Some(MissingMember { name, reason, .. }) = missing {
            noticed.degraded_tokens += 1;
            noticed.first_missing.get_or_insert_with(|| format!("{name}: {reason}"));
        }
        noticed.longest_gap = noticed.longest_gap.max(gap);
        noticed.gaps.record(gap);
    }

    fn note(&self, outcome: &Result<(String, bool), Status>, expected: &str) {
        let mut noticed = self.open();
        noticed.requests += 1;
        match outcome {
            Ok((text, is_whole)) => noticed.wrong += u64::from(*is_whole && text != expected),
            Err(status) => {
                noticed.failed += 1;
                noticed.first_failure.get_or_insert_with(|| status.message().to_owned());
            }
        }
    }
}

async fn text(client: &mut EnsembleClient<Wire>, request: GenerateRequest) -> Result<String, Status> {
    let mut stream = client.generate(request).await?.into_inner();
    let mut text = String::new();
    while let Some(GenerateReply { text: more, .. }) = stream.message().await? {
        text.push_str(&more);
    }
    Ok(text)
}

/// Half of the callers have whole rows fused for them, one member draws for the others.
fn request(seed: u64, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: Some(Input { input: Some(input::Input::Text(PROMPT.to_owned())) }),
        max_tokens: Some(max_tokens),
        sampling: Some(SamplingOptions { seed: Some(seed), ..SamplingOptions::default() }),
        log_probs: seed.is_multiple_of(2),
        ..GenerateRequest::default()
    }
}
