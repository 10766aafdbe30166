//! The running ensemble, over gRPC and in four processes, equals fusing the same models in this one, to the bit.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use candle_core::Device;
use chorus_coordinator::fusion::{Fused, Fusion, Row, Rule, Scratch, fuse};
use chorus_coordinator::sampling::{drawing_member, uniform};
use chorus_model::{LanguageModel, State, Want};
use chorus_proto::v1::{
    self, FusionOptions, GenerateReply, GenerateRequest, PredictRequest, SamplingOptions, ScoreRequest, Votes,
};
use chorus_simd::norm;
use chorus_tests::{Ensemble, PATIENT, generate, models, text_input};

const PROMPT: &str = "First Citizen:\nBefore we proceed any further, hear me speak.\n";
/// Not equal, so that a swapped order or a forgotten weight shows.
const WEIGHTS: [f64; 3] = [0.5, 0.2, 0.3];
const THRESHOLD: f64 = 0.1;
const RULES: [Rule; 5] =
    [Rule::WeightedAverage, Rule::ThresholdVote, Rule::LogLinear, Rule::LogitMean, Rule::LogitMax];

/// The demo members, read and run in this process.
struct InProcess {
    models: Vec<LanguageModel>,
}

/// What members said about some positions.
struct Said {
    participants: Vec<usize>,
    /// Of each participant, row after row.
    logits: Vec<Vec<f32>>,
    vocabulary_size: usize,
}

impl Said {
    fn positions(&self) -> usize {
        self.logits[0].len() / self.vocabulary_size
    }

    /// Fuses what was said about one position.
    fn fused<T>(&self, rule: Rule, position: usize, make: impl FnOnce(Fused<'_>) -> T) -> T {
        let size = self.vocabulary_size;
        let rows = self.participants.iter().zip(&self.logits).map(|(member, logits)| {
            let row = &logits[position * size..][..size];
            (WEIGHTS[*member], Row::new(row, norm(row), size).unwrap())
        });
        let rows: Vec<(f64, Row<'_>)> = rows.collect();
        make(fuse(&Fusion { rule, threshold: THRESHOLD }, &rows, &mut Scratch::default()).unwrap())
    }
}

impl InProcess {
    fn load() -> Self {
        let load = |name| LanguageModel::load(&models::demo(name), &Device::Cpu).unwrap();
        Self { models: models::DEMO.map(load).into() }
    }

    fn encode(&self, text: &str) -> Vec<u32> {
        self.models[0].vocabulary().encode(text).unwrap()
    }

    fn fresh(&self) -> Vec<State> {
        self.models.iter().map(|model| model.fresh_state().unwrap()).collect()
    }

    /// Feeds every member.
    fn feed(&self, states: &mut [State], tokens: &[u32], want: Want) -> Said {
        let of = |(model, state): (&LanguageModel, &mut State)| {
            model.forward(&mut [chorus_model::Row { state, tokens, want }]).unwrap().remove(0).logits
        };
        let logits = self.models.iter().zip(states).map(of).collect();
        Said { participants: vec![0, 1, 2], logits, vocabulary_size: self.models[0].config().vocab_size }
    }

    /// Feeds every member, and draws from the one whose turn it is.
    fn draw(&self, states: &mut [State], tokens: &[u32], seed: u64, index: u32) -> u32 {
        let drawing = drawing_member(seed, index, WEIGHTS.into_iter().enumerate()).unwrap();
        let mut drawn = None;
        for (member, (model, state)) in self.models.iter().zip(states).enumerate() {
            let row = chorus_model::Row { state, tokens, want: Want::Next };
            let logits = model.forward(&mut [row]).unwrap().remove(0).logits;
            if member == drawing {
                drawn = Some(chorus_simd::draw(&logits, norm(&logits), uniform(seed, index)));
            }
        }
        drawn.unwrap() as u32
    }
}

fn options(rule: Rule) -> Option<FusionOptions> {
    let threshold = (rule == Rule::ThresholdVote).then_some(THRESHOLD);
    Some(FusionOptions { rule: v1::Rule::from(rule).into(), threshold, ..Default::default() })
}

/// The demo ensemble with weights that are not equal.
async fn weighted_demo() -> Ensemble {
    let ensemble = Ensemble::demo_with_weights(WEIGHTS, PATIENT).await;
    assert_eq!(ensemble.members.len(), WEIGHTS.len());
    ensemble
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_equal_the_in_process_fusion_to_the_bit() {
    let (ensemble, local) = (weighted_demo().await, InProcess::load());
    let mut client = ensemble.client().await;
    for rule in RULES {
        let request = PredictRequest { prefix: text_input(PROMPT), top_n: Some(20), fusion: options(rule) };
        let reply = client.predict(request).await.unwrap().into_inner();
        let served: Vec<(u32, u64)> =
            reply.candidates.iter().map(|c| (c.id, c.probability.to_bits())).collect();
        let said = local.feed(&mut local.fresh(), &local.encode(PROMPT), Want::Next);
        let expected: Vec<(u32, u64)> = said.fused(rule, 0, |fused| match fused {
            Fused::Distribution(fused) => {
                fused.top(20).iter().map(|c| (c.id, c.log_prob.exp().to_bits())).collect()
            }
            Fused::Winner(winner) => {
                winner.top(20).iter().map(|c| (c.id, c.log_prob.exp().to_bits())).collect()
            }
        });
        assert_eq!(served, expected, "{rule}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scores_equal_the_in_process_fusion_to_the_bit() {
    let (ensemble, local) = (weighted_demo().await, InProcess::load());
    let mut client = ensemble.client().await;
    let tokens = local.encode(PROMPT);
    for rule in RULES {
        let request = ScoreRequest { input: text_input(PROMPT), fusion: options(rule), per_token: true };
        let reply = client.score(request).await.unwrap().into_inner();
        let said = local.feed(&mut local.fresh(), &tokens, Want::Each);
        assert_eq!((reply.token_scores.len(), said.positions()), (tokens.len(), tokens.len()));
        for (position, (score, token)) in reply.token_scores.iter().zip(&tokens).enumerate() {
            assert_eq!(score.id, *token);
            said.fused(rule, position, |fused| match fused {
                Fused::Distribution(fused) => {
                    assert_eq!(
                        score.log_prob.unwrap().to_bits(),
                        fused.log_prob(*token).unwrap().to_bits(),
                        "{rule}"
                    );
                }
                Fused::Winner(winner) => {
                    let by_weighted_average = winner.by_weighted_average;
                    assert_eq!(score.winner, Some(winner.id == *token));
                    let count = score.votes.as_ref().map(|votes: &Votes| votes.count);
                    assert_eq!(count, Some(winner.votes_for(*token)), "{by_weighted_average}");
                }
            });
        }
    }
}

/// log P under the weighted average needs one number a token and member; it is fused from those numbers to the bit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scoring_by_targets_equals_fusing_the_members_own_log_probabilities() {
    let (ensemble, local) = (weighted_demo().await, InProcess::load());
    let reply = chorus_tests::score_text(&mut ensemble.client().await, PROMPT).await.unwrap();
    let tokens = local.encode(PROMPT);
    let size = local.models[0].config().vocab_size;
    let mut own: Vec<Vec<f64>> = Vec::new();
    for (model, mut state) in local.models.iter().zip(local.fresh()) {
        let row = chorus_model::Row { state: &mut state, tokens: &tokens, want: Want::Each };
        let logits = model.forward(&mut [row]).unwrap().remove(0).logits;
        let rows = logits.chunks_exact(size).zip(&tokens);
        own.push(rows.map(|(row, token)| norm(row).log_prob(row[*token as usize])).collect());
    }
    let members: Vec<(f64, &[f64])> = WEIGHTS.into_iter().zip(own.iter().map(Vec::as_slice)).collect();
    let expected = chorus_coordinator::fusion::fuse_targets(&members).unwrap();
    let served: Vec<f64> = reply.token_scores.iter().map(|score| score.log_prob.unwrap()).collect();
    assert_eq!(served, expected);
    assert_eq!(reply.log_prob.unwrap(), expected.iter().sum::<f64>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greedy_generations_equal_the_in_process_fusion_to_the_bit() {
    let (ensemble, local) = (weighted_demo().await, InProcess::load());
    let mut client = ensemble.client().await;
    for rule in RULES {
        let vote = rule == Rule::ThresholdVote;
        let greedy = SamplingOptions { temperature: Some(0.0), ..Default::default() };
        let request = GenerateRequest {
            prompt: text_input(PROMPT),
            max_tokens: Some(40),
            fusion: options(rule),
            sampling: (!vote).then_some(greedy),
            log_probs: !vote,
            ..Default::default()
        };
        let replies = generate(&mut client, request).await.unwrap();
        let served: Vec<_> =
            replies.iter().filter_map(|reply: &GenerateReply| reply.token.as_ref()).collect();
        assert_eq!(served.len(), 40);
        let (mut states, mut feed) = (local.fresh(), local.encode(PROMPT));
        for token in served {
            local.feed(&mut states, &feed, Want::Next).fused(rule, 0, |fused| match fused {
                Fused::Distribution(fused) => {
                    assert_eq!(token.id, fused.argmax(), "{rule}");
                    assert_eq!(token.log_prob, fused.log_prob(token.id), "{rule}");
                }
                Fused::Winner(winner) => {
                    let votes = token.votes.as_ref().expect("how the winner won");
                    assert_eq!((token.id, votes.count), (winner.id, winner.votes));
                    assert_eq!(votes.by_weighted_average, winner.by_weighted_average);
                }
            });
            feed = vec![token.id];
        }
    }
}

/// Without log-probabilities a greedy choice is made of rows, which are small here, and a draw is one member's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generations_by_any_plan_equal_the_in_process_fusion() {
    let (ensemble, local) = (weighted_demo().await, InProcess::load());
    let mut client = ensemble.client().await;
    for temperature in [0.0, 1.0] {
        let request = GenerateRequest {
            prompt: text_input(PROMPT),
            max_tokens: Some(300),
            sampling: Some(SamplingOptions {
                temperature: Some(temperature),
                seed: Some(5),
                ..Default::default()
            }),
            ..Default::default()
        };
        let replies = generate(&mut client, request).await.unwrap();
        let served = replies.iter().filter_map(|reply: &GenerateReply| reply.token.as_ref());
        let (mut states, mut feed) = (local.fresh(), local.encode(PROMPT));
        for token in served {
            let expected = if temperature == 0.0 {
                let said = local.feed(&mut states, &feed, Want::Next);
                said.fused(Rule::WeightedAverage, 0, |fused| match fused {
                    Fused::Distribution(fused) => fused.argmax(),
                    Fused::Winner(_) => panic!("the weighted average is a distribution"),
                })
            } else {
                local.draw(&mut states, &feed, 5, token.index)
            };
            assert_eq!(token.id, expected, "token {} at temperature {temperature}", token.index);
            feed = vec![token.id];
        }
    }
    let sent = chorus_tests::plans(&mut client).await;
    assert_eq!(sent, ["dense", "drawn"]);
}

/// Whoever took part in a token, its probability is that of the same members fused here: a member that came back knows
/// the whole text, to the bit, and one that is away has no share.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generation_through_a_death_and_a_return_equals_the_in_process_fusion_of_whoever_took_part() {
    let (mut ensemble, local) = (weighted_demo().await, InProcess::load());
    let request = GenerateRequest {
        prompt: text_input(PROMPT),
        max_tokens: Some(4096),
        sampling: Some(SamplingOptions { seed: Some(5), ..Default::default() }),
        log_probs: true,
        ..Default::default()
    };
    let mut stream = ensemble.client().await.generate(request).await.unwrap().into_inner();
    let (mut states, mut feed) = (local.fresh(), local.encode(PROMPT));
    let (mut together, mut without, mut again) = (0, 0, 0);
    while again < 30 {
        let reply = stream.message().await.expect("the generation goes on").expect("it is not over");
        let token = reply.token.expect("a token");
        let names = reply.participation.expect("every message names its participants").participants;
        let participants: Vec<usize> =
            (0..3).filter(|&member| names.iter().any(|name| name == models::DEMO[member])).collect();
        assert_eq!(participants.len(), names.len());
        let counter = match (names.len(), without) {
            (2, _) => &mut without,
            (_, 0) => &mut together,
            _ => &mut again,
        };
        *counter += 1;

        let mut said = local.feed(&mut states, &feed, Want::Next);
        said.logits = participants.iter().map(|member| said.logits[*member].clone()).collect();
        said.participants = participants;
        let log_prob = said.fused(Rule::WeightedAverage, 0, |fused| match fused {
            Fused::Distribution(fused) => fused.log_prob(token.id),
            Fused::Winner(_) => panic!("the weighted average is a distribution"),
        });
        let bits = |log_prob: Option<f64>| log_prob.map(f64::to_bits);
        let index = token.index;
        assert_eq!(bits(token.log_prob), bits(log_prob), "token {index} by {names:?}");
        feed = vec![token.id];
        if together == 20 && without + again == 0 {
            ensemble.members[1].kill();
            ensemble.members[1].start_again();
        }
    }
    assert!(without > 0, "the loss shows in the messages");
}
