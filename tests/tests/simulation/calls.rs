//! One caller: calls of every kind, one after the other, each answer held against the reference, some given up on the way.
//!
//! Knows nothing about faults.

use std::{sync::Arc, time::Duration};

use chorus_coordinator::fusion::{Fused, Rule};
use chorus_proto::v1::{
    self, FusionOptions, GenerateReply, GenerateRequest, Input, Participation, SamplingOptions, ScoreRequest,
    TokenIds, ensemble_client::EnsembleClient, input,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request, Status, transport::Channel};

use super::{faults::TROUBLE, network, reference::Reference, world::Diary};

/// A call that takes longer than this hangs: every fault of a history is over sooner.
const PATIENCE: Duration = Duration::from_secs(20);
/// A caller asks after its connection this often. Nothing is delayed for so long.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// The caller's time for a call that it limits.
const SHORT_TIME: Duration = Duration::from_millis(300);

/// Who calls whom, and what it knows.
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) coordinator: String,
    pub(crate) seed: u64,
    pub(crate) reference: Arc<Reference>,
    pub(crate) diary: Diary,
    /// Whether a call may fail because nobody is there.
    pub(crate) may_be_unavailable: bool,
    /// Whether what is under way between caller and coordinator may be lost, and all calls on that connection with it.
    pub(crate) may_be_cut_off: bool,
    /// How long after its deadline the end of a call may come to the caller.
    pub(crate) lateness: Duration,
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Whole rows: every token with its log-probability.
    Sampled,
    /// One member draws.
    Drawn,
    Greedy,
    Vote,
    Score,
}

const KINDS: [Kind; 5] = [Kind::Sampled, Kind::Drawn, Kind::Greedy, Kind::Vote, Kind::Score];

/// How a call is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Waits,
    /// The caller hangs up after this long.
    HangsUp(Duration),
    /// The call says how much time it has.
    Deadline,
}

impl Caller {
    pub(crate) async fn run(self) -> turmoil::Result {
        let mut random = StdRng::seed_from_u64(self.seed);
        let endpoint = Channel::from_shared(format!("http://{}:50051", self.coordinator))?
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE);
        let client = loop {
            match network::connect(endpoint.clone()).await {
                Ok(channel) => break EnsembleClient::new(channel),
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        };
        self.until_somebody_serves(&client).await;
        // Until some time after the last fault has begun.
        for number in 0.. {
            if turmoil::sim_elapsed().is_none_or(|elapsed| elapsed > TROUBLE + TROUBLE / 4) {
                break;
            }
            sleep(Duration::from_millis(random.random_range(0..120))).await;
            let kind = KINDS[random.random_range(0..KINDS.len())];
            let end = match random.random_range(0..8) {
                0 => End::HangsUp(Duration::from_millis(random.random_range(1..200))),
                1 => End::Deadline,
                _ => End::Waits,
            };
            self.call(&client, &mut random, number, kind, end).await;
        }
        Ok(())
    }

    async fn until_somebody_serves(&self, client: &EnsembleClient<Channel>) {
        let mut client = client.clone();
        loop {
            let status = client.status(v1::StatusRequest {}).await;
            if status.is_ok_and(|status| status.into_inner().serving) {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn call(
        &self,
        client: &EnsembleClient<Channel>,
        random: &mut StdRng,
        number: usize,
        kind: Kind,
        end: End,
    ) {
        let vocabulary = self.reference.vocabulary_size() as u32;
        let prompt: Vec<u32> =
            (0..random.random_range(1..40)).map(|_| random.random_range(0..vocabulary)).collect();
        let (tokens, seed) = (random.random_range(1..40), random.random_range(0..1 << 40));
        let begin = Instant::now();
        let work = async {
            match kind {
                Kind::Score => self.score(client.clone(), &prompt, end).await,
                _ => self.generate(client.clone(), &prompt, kind, tokens, seed, end).await,
            }
        };
        let patience = if let End::HangsUp(after) = end { after } else { PATIENCE };
        let outcome = timeout(patience, work).await;
        let took = begin.elapsed();
        let what = format!("{} call {number} {kind:?} {end:?}", self.name);
        let outcome = match outcome {
            Ok(Ok(answer)) => {
                self.diary.answered(&answer);
                format!("ok {answer:?}")
            }
            Ok(Err(status)) => {
                self.diary.failed();
                self.assert_may_fail(&what, &status, end);
                format!("{:?}: {}", status.code(), status.message())
            }
            Err(_) => {
                assert!(matches!(end, End::HangsUp(_)), "{what} hangs");
                self.diary.cancelled();
                "given up".to_owned()
            }
        };
        self.diary.note(&format!("{what}: {outcome} after {took:?}"));
        if end == End::Deadline {
            assert!(took < SHORT_TIME + self.lateness, "{what} took {took:?}");
        }
    }

    fn assert_may_fail(&self, what: &str, status: &Status, end: End) {
        let may = match status.code() {
            // The second one is what the caller's own clock makes of it.
            Code::DeadlineExceeded | Code::Cancelled => end == End::Deadline,
            Code::Unavailable => self.may_be_unavailable || self.may_be_cut_off,
            // What the transport says of a connection that broke.
            Code::Unknown | Code::Internal => self.may_be_cut_off,
            _ => false,
        };
        assert!(may, "{what} failed: {:?} {}", status.code(), status.message());
    }

    async fn generate(
        &self,
        mut client: EnsembleClient<Channel>,
        prompt: &[u32],
        kind: Kind,
        max_tokens: u32,
        seed: u64,
        end: End,
    ) -> Result<Answer, Status> {
        let temperature = (kind == Kind::Greedy).then_some(0.0);
        let rule = if kind == Kind::Vote { v1::Rule::ThresholdVote } else { v1::Rule::WeightedAverage };
        let sampling = (kind != Kind::Vote).then(|| SamplingOptions {
            temperature,
            seed: Some(seed),
            ..SamplingOptions::default()
        });
        let request = GenerateRequest {
            prompt: ids(prompt),
            max_tokens: Some(max_tokens),
            sampling,
            fusion: Some(FusionOptions { rule: rule.into(), ..FusionOptions::default() }),
            log_probs: kind == Kind::Sampled,
            ..GenerateRequest::default()
        };
        let mut stream = client.generate(with_end(request, end)).await?.into_inner();
        let mut answer = Answer::default();
        let mut prefix = prompt.to_vec();
        let mut is_over = false;
        while let Some(reply) = stream.message().await? {
            assert!(!is_over, "nothing follows the end");
            is_over = reply.end.is_some();
            if let Some(token) = &reply.token {
                self.check_token(kind, seed, &prefix, &reply, answer.tokens.len() as u32);
                prefix.push(token.id);
                answer.take(token.id, participation(&reply));
            }
        }
        assert!(is_over, "a stream that ends well says so");
        assert_eq!(answer.tokens.len(), max_tokens as usize, "no token is lost");
        Ok(answer)
    }

    /// A token is what the reference makes of the participants that are declared with it, to the bit.
    fn check_token(&self, kind: Kind, seed: u64, prefix: &[u32], reply: &GenerateReply, index: u32) {
        let token = reply.token.as_ref().expect("a token");
        assert_eq!(token.index, index, "no token is sent twice or left out");
        let participants = self.reference.participants(participation(reply));
        match kind {
            Kind::Sampled => {
                let expected =
                    self.reference.fused(&participants, prefix, Rule::WeightedAverage, |fused| match fused {
                        Fused::Distribution(distribution) => distribution.log_prob(token.id).unwrap(),
                        Fused::Winner(_) => unreachable!("no vote"),
                    });
                assert_eq!(token.log_prob.map(f64::to_bits), Some(expected.to_bits()));
                assert_eq!(token.id, self.reference.drawn(&participants, prefix, seed, index));
            }
            Kind::Drawn => assert_eq!(token.id, self.reference.drawn(&participants, prefix, seed, index)),
            Kind::Greedy => {
                let best =
                    self.reference.fused(&participants, prefix, Rule::WeightedAverage, |fused| match fused {
                        Fused::Distribution(distribution) => distribution.top(1)[0].id,
                        Fused::Winner(_) => unreachable!("no vote"),
                    });
                assert_eq!(token.id, best);
            }
            Kind::Vote => {
                let winner =
                    self.reference.fused(&participants, prefix, Rule::ThresholdVote, |fused| match fused {
                        Fused::Winner(winner) => (winner.id, winner.votes),
                        Fused::Distribution(_) => unreachable!("a vote"),
                    });
                assert_eq!((token.id, token.votes.expect("votes").count), winner);
            }
            Kind::Score => unreachable!("no generation"),
        }
    }

    async fn score(
        &self,
        mut client: EnsembleClient<Channel>,
        tokens: &[u32],
        end: End,
    ) -> Result<Answer, Status> {
        let request = ScoreRequest { input: ids(tokens), fusion: None, per_token: true };
        let reply = client.score(with_end(request, end)).await?.into_inner();
        let participation = reply.participation.expect("named");
        let participants = self.reference.participants(&participation);
        assert_eq!(reply.token_scores.len(), tokens.len());
        for (position, score) in reply.token_scores.iter().enumerate() {
            let expected =
                self.reference.fused(&participants, &tokens[..position], Rule::WeightedAverage, |fused| {
                    match fused {
                        Fused::Distribution(distribution) => distribution.log_prob(tokens[position]).unwrap(),
                        Fused::Winner(_) => unreachable!("no vote"),
                    }
                });
            assert_eq!(score.log_prob.map(f64::to_bits), Some(expected.to_bits()), "position {position}");
        }
        let mut answer = Answer::default();
        answer.take(tokens.len() as u32, &participation);
        Ok(answer)
    }
}

/// What is noted of an answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    tokens: Vec<u32>,
    /// Tokens without all members.
    pub(crate) degraded: u64,
}

impl Answer {
    fn take(&mut self, token: u32, participation: &Participation) {
        self.tokens.push(token);
        self.degraded += u64::from(!participation.missing.is_empty());
    }
}

fn participation(reply: &GenerateReply) -> &Participation {
    reply.participation.as_ref().expect("no message without its participants")
}

fn with_end<T>(message: T, end: End) -> Request<T> {
    let mut request = Request::new(message);
    if end == End::Deadline {
        request.set_timeout(SHORT_TIME);
    }
    request
}

fn ids(tokens: &[u32]) -> Option<Input> {
    let ids = tokens.iter().map(|token| i64::from(*token)).collect();
    Some(Input { input: Some(input::Input::Tokens(TokenIds { ids })) })
}
