//! Generations in progress while something happens to the ensemble, and what their callers notice.

use std::time::Duration;

use chorus_proto::v1::{GenerateReply, GenerateRequest, SamplingOptions};
use futures::future::join_all;
use tokio::{sync::mpsc, task::JoinHandle, time::Instant};

use crate::clients::{EnsembleClient, generate, joined_text, text_input};

pub const GENERATIONS: u64 = 24;

/// Whole distributions are fused for half of the seeds, and one member draws for the others.
fn request(seed: u64, max_tokens: u32) -> GenerateRequest {
    GenerateRequest {
        prompt: text_input("ROMEO:\n"),
        max_tokens: Some(max_tokens),
        sampling: Some(SamplingOptions { seed: Some(seed), ..Default::default() }),
        log_probs: seed.is_multiple_of(2),
        ..Default::default()
    }
}

/// Whether every member took part in every token.
fn is_whole(replies: &[GenerateReply]) -> bool {
    let has_all = |reply: &GenerateReply| reply.participation.as_ref().expect("named").missing.is_empty();
    replies.iter().all(has_all)
}

/// What every seed generates when all members take part in all of it.
pub async fn texts(client: &EnsembleClient, max_tokens: u32) -> Vec<String> {
    let each = (0..GENERATIONS).map(|seed| {
        let mut client = client.clone();
        async move {
            let replies = generate(&mut client, request(seed, max_tokens)).await.expect("served");
            assert!(is_whole(&replies), "nothing was done to any member");
            joined_text(&replies)
        }
    });
    join_all(each).await
}

/// One for each seed, each of which tells its seed with every token.
pub struct Running {
    tasks: Vec<JoinHandle<Generated>>,
    progress: mpsc::UnboundedReceiver<u64>,
}

/// What came of one generation.
#[derive(Debug)]
struct Generated {
    text: String,
    /// Whether every member took part in every token.
    is_whole: bool,
    longest_gap: Duration,
}

/// What came of all of them; none failed.
#[derive(Debug)]
pub struct Noticed {
    texts: Vec<String>,
    /// With a token that not all members took part in.
    pub degraded: usize,
    /// Between two tokens of any of them.
    pub longest_gap: Duration,
}

impl Running {
    pub fn start(client: &EnsembleClient, max_tokens: u32) -> Self {
        let (tell, progress) = mpsc::unbounded_channel();
        let task = |seed| {
            let (mut client, tell) = (client.clone(), tell.clone());
            tokio::spawn(async move {
                let mut stream =
                    client.generate(request(seed, max_tokens)).await.expect("accepted").into_inner();
                let (mut replies, mut longest_gap, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
                while let Some(reply) = stream.message().await.expect("no generation fails") {
                    longest_gap = longest_gap.max(last.elapsed());
                    last = Instant::now();
                    replies.push(reply);
                    tell.send(seed).ok();
                }
                Generated { text: joined_text(&replies), is_whole: is_whole(&replies), longest_gap }
            })
        };
        Self { tasks: (0..GENERATIONS).map(task).collect(), progress }
    }

    /// Waits until every generation has come so many tokens further.
    pub async fn until_each_has(&mut self, tokens: usize) {
        let mut counts = [0; GENERATIONS as usize];
        while counts.iter().any(|count| *count < tokens) {
            counts[self.progress.recv().await.expect("they go on") as usize] += 1;
        }
    }

    /// Waits until all are done.
    pub async fn finish(self) -> Noticed {
        let mut noticed = Noticed { texts: Vec::new(), degraded: 0, longest_gap: Duration::ZERO };
        for task in self.tasks {
            let generated = task.await.expect("no panic");
            noticed.texts.push(generated.text);
            noticed.degraded += usize::from(!generated.is_whole);
            noticed.longest_gap = noticed.longest_gap.max(generated.longest_gap);
        }
        noticed
    }
}

impl Noticed {
    /// Nothing was noticed: all members in every token, and the texts are these.
    pub fn assert_whole(&self, expected: &[String]) {
        assert_eq!(self.degraded, 0, "generations without all members");
        for (seed, (text, expected)) in self.texts.iter().zip(expected).enumerate() {
            // Without printing all of them.
            let same = text.bytes().zip(expected.bytes()).take_while(|(one, other)| one == other).count();
            let length = expected.len();
            assert!(text == expected, "seed {seed}: only the first {same} bytes of {length} are the same");
        }
    }

    /// In a line, for people.
    pub fn summary(&self) -> String {
        let (all, degraded, gap) = (self.texts.len(), self.degraded, self.longest_gap);
        format!("0 of {all} failed, {degraded} without all members, longest gap {gap:.1?}")
    }
}
