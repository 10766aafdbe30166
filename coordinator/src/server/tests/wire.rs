//! What crosses the wire for a token, counted over real links: five members, a vocabulary of 33,278 tokens (that of
//! WikiText-2), distributions like those of language. The README has the table that `--nocapture` prints.

use chorus_proto::v1::{FusionOptions, PredictRequest, Rule, SamplingOptions, ScoreRequest, TokenIds};

use super::*;
use crate::testing::scripted_replica::Style;

const MEMBERS: usize = 5;
const VOCABULARY: u32 = 33_278;
/// Of dense f32 rows, from all members, in bytes a token.
const DENSE: f64 = MEMBERS as f64 * VOCABULARY as f64 * 4.0;

/// What one request took, of all members.
struct Taken {
    bytes_per_token: f64,
    rows_per_token: f64,
}

struct Meter {
    coordinator: Coordinator,
    client: EnsembleClient<Channel>,
    _workers: Vec<ScriptedWorker>,
}

impl Meter {
    async fn new() -> Self {
        let words = (0..VOCABULARY).map(|word| format!("w{word}")).collect();
        let vocabulary = Vocabulary::from_word_list(words).unwrap();
        assert_eq!(vocabulary.len(), VOCABULARY);
        let seeds = 1..=MEMBERS as u64;
        let workers: Vec<_> = seeds
            .map(|seed| ScriptedWorker::start_in_style(Style::Language, &vocabulary, seed, Manner::Faithful))
            .collect();
        let coordinator = coordinator(&workers.iter().collect::<Vec<_>>(), "").await;
        let mut client = EnsembleClient::new(coordinator.channel().await);
        until_all_are_up(&mut client).await;
        Self { coordinator, client, _workers: workers }
    }

    /// Bytes, tokens and rows of all members so far.
    async fn counts(&mut self) -> [u64; 3] {
        let status = self.client.status(StatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.members.len(), MEMBERS);
        let traffic = status.members.iter().flat_map(|member| &member.traffic);
        traffic.fold([0; 3], |[bytes, tokens, rows], plan| {
            let of_plan = plan.bytes_sent + plan.bytes_received;
            [bytes + of_plan, tokens + plan.tokens, rows + plan.output_rows]
        })
    }

    /// What happens between two looks at the counts.
    async fn taken(&mut self, what: &str, before: [u64; 3]) -> Taken {
        let after = self.counts().await;
        let [bytes, tokens, rows] = [0, 1, 2].map(|which| (after[which] - before[which]) as f64);
        let tokens = tokens / MEMBERS as f64;
        let taken = Taken { bytes_per_token: bytes / tokens, rows_per_token: rows / tokens };
        let (bytes, rows) = (taken.bytes_per_token, taken.rows_per_token);
        println!("| {what} | {bytes:.0} | 1/{:.0} | {rows:.2} |", DENSE / bytes);
        taken
    }

    async fn generate(&mut self, what: &str, tokens: u32, request: GenerateRequest) -> Taken {
        let before = self.counts().await;
        let request = GenerateRequest { prompt: input(&[1000]), max_tokens: Some(tokens), ..request };
        rest(self.client.generate(request).await.unwrap().into_inner()).await;
        self.taken(what, before).await
    }

    async fn score(&mut self, what: &str, request: ScoreRequest) -> Taken {
        let before = self.counts().await;
        self.client.score(request).await.unwrap();
        self.taken(what, before).await
    }
}

fn input(tokens: &[i64]) -> Option<Input> {
    Some(Input { input: Some(input::Input::Tokens(TokenIds { ids: tokens.to_vec() })) })
}

fn vote() -> Option<FusionOptions> {
    Some(FusionOptions { rule: Rule::ThresholdVote.into(), threshold: Some(0.1), ..FusionOptions::default() })
}

fn sampling(temperature: f64) -> Option<SamplingOptions> {
    Some(SamplingOptions { temperature: Some(temperature), seed: Some(1), ..SamplingOptions::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_takes_a_small_part_of_the_bytes_of_whole_rows() {
    let mut meter = Meter::new().await;
    println!("| request | bytes a token | of dense | output rows a token |\n|---|---|---|---|");
    let whole = Some(FusionOptions { whole_rows: true, ..FusionOptions::default() });
    let request = GenerateRequest { fusion: whole, sampling: sampling(0.0), ..GenerateRequest::default() };
    let dense = meter.generate("any, whole rows", 4, request).await;
    assert!((dense.bytes_per_token / DENSE - 1.0).abs() < 1e-3, "{}", dense.bytes_per_token);

    let tokens: Vec<i64> = (0..60).map(|index| index * 547 % 33_278).collect();
    let request = ScoreRequest { input: input(&tokens), ..ScoreRequest::default() };
    let score = meter.score("score, weighted average", request.clone()).await;
    assert!(score.bytes_per_token < DENSE / 1000.0);
    let score = meter.score("score, vote", ScoreRequest { fusion: vote(), ..request }).await;
    assert!(score.bytes_per_token < DENSE / 1000.0);

    let request = GenerateRequest { fusion: vote(), ..GenerateRequest::default() };
    let generated = meter.generate("generate, vote", 60, request).await;
    assert!(generated.bytes_per_token < DENSE / 1000.0);
    let request = GenerateRequest { sampling: sampling(0.0), ..GenerateRequest::default() };
    let greedy = meter.generate("generate, greedy", 60, request).await;
    assert!(greedy.bytes_per_token < DENSE / 100.0);
    let request = GenerateRequest { sampling: sampling(1.0), ..GenerateRequest::default() };
    let drawn = meter.generate("generate, sampled", 60, request).await;
    assert!(drawn.bytes_per_token < DENSE / 1000.0);
    assert!((drawn.rows_per_token - 1.0).abs() < 1e-9, "1/M of the output layer's work");

    let before = meter.counts().await;
    let request = PredictRequest { prefix: input(&[5]), top_n: Some(10), fusion: None };
    meter.client.predict(request).await.unwrap();
    let predicted = meter.taken("predict, 10 tokens", before).await;
    assert!(predicted.bytes_per_token < DENSE / 100.0);
    meter.coordinator.stop().await;
}
