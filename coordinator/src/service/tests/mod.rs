//! The service over scripted members, without sockets: what clients see, held against fusion in this process.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod adapting;
mod admission;
mod caching;
mod choosing;
mod classifying;
mod clients;
mod completing;
mod degrading;
mod distributing;
mod falling_back;
mod fusing;
mod guarding;
mod learned;
mod plans;
mod ranking;
mod scoring;
mod searching;
mod survival;

use std::sync::Arc;

use chorus_proto::v1::{
    CompleteReply, GenerateReply, GenerateRequest, Input, Participation, PredictReply, PredictRequest,
    SamplingOptions, ScoreReply, ScoreRequest, StatusReply, StatusRequest, TokenIds,
    ensemble_server::Ensemble as _, input,
};
use chorus_text::Vocabulary;
use futures::StreamExt;
use tokio::sync::watch;
use tonic::{Request, Status};

use super::EnsembleService;
use crate::config::{Config, Overrides};
use crate::ensemble::{Common, Ensemble};
use crate::fusion::{Fused, Scratch, fuse};
use crate::member::Member;
use crate::replica::{Replica, ReplicaError};
use crate::sampling::{drawing_member, uniform};
use crate::testing::scripted_replica::{Act, ScriptedReplica, Style, card};

const NAMES: [&str; 3] = ["alto", "bass", "cello"];
const WEIGHTS: [f64; 3] = [2.0, 1.0, 3.0];
const STUDENT: &str = "student";

/// An ensemble of three scripted members.
struct Stage {
    /// Each has one replica.
    members: [Arc<ScriptedReplica>; 3],
    /// Who is there to be configured as the fallback; it has to be started.
    student: Arc<ScriptedReplica>,
    config: Config,
    ensemble: Arc<Ensemble>,
    service: EnsembleService,
}

fn vocabulary() -> Vocabulary {
    Vocabulary::train_characters("abcdefgh").unwrap()
}

/// One where other plans than whole rows are worth it.
fn large_vocabulary() -> Vocabulary {
    Vocabulary::train_characters(&('\u{4e00}'..).take(1100).collect::<String>()).unwrap()
}

impl Stage {
    /// Everybody is up; `toml` is what the configuration says beside the members.
    async fn new(toml: &str) -> Self {
        Self::with(Style::Noise, &vocabulary(), toml).await
    }

    async fn with(style: Style, vocabulary: &Vocabulary, toml: &str) -> Self {
        Self::before_anybody_came_with(style, vocabulary, toml).everybody_comes(vocabulary).await
    }

    async fn everybody_comes(self, vocabulary: &Vocabulary) -> Self {
        let stage = self;
        let json = vocabulary.to_json().as_bytes().to_vec();
        let card = card("alto", vocabulary);
        stage.ensemble.common.agreement.join("alto").define(json, &card).await.unwrap();
        stage.members.iter().for_each(|member| member.start());
        stage
    }

    /// With weights that were learned.
    async fn with_learned(style: Style, vocabulary: &Vocabulary, toml: &str, learned: &str) -> Self {
        let mut config = Self::configured(toml);
        config.learn(learned).unwrap();
        Self::of_config(style, vocabulary, config).everybody_comes(vocabulary).await
    }

    fn before_anybody_came(toml: &str) -> Self {
        Self::before_anybody_came_with(Style::Noise, &vocabulary(), toml)
    }

    fn before_anybody_came_with(style: Style, vocabulary: &Vocabulary, toml: &str) -> Self {
        Self::of_config(style, vocabulary, Self::configured(toml))
    }

    fn configured(toml: &str) -> Config {
        let flags = NAMES.iter().zip(WEIGHTS);
        let flags = flags.map(|(name, weight)| format!("{name}@{weight}=http://127.0.0.1:9").parse());
        let members = flags.collect::<Result<_, _>>().unwrap();
        let config = Config::new(Some(toml), Overrides { members, ..Overrides::default() });
        config.unwrap()
    }

    fn of_config(style: Style, vocabulary: &Vocabulary, config: Config) -> Self {
        let members: [Arc<ScriptedReplica>; 3] = std::array::from_fn(|index| {
            ScriptedReplica::in_style(style, NAMES[index], index as u64 + 1, vocabulary)
        });
        let of_one = |(name, replica): (&&str, &Arc<ScriptedReplica>)| {
            Arc::new(Member::new(name, [Arc::clone(replica) as Arc<dyn Replica>], 0.0))
        };
        let mut of_one: Vec<Arc<Member>> = NAMES.iter().zip(&members).map(of_one).collect();
        let student = ScriptedReplica::in_style(style, STUDENT, 9, vocabulary);
        of_one.push(Arc::new(Member::new(STUDENT, [Arc::clone(&student) as Arc<dyn Replica>], 0.0)));
        let common = Common::of_tests(&config);
        let member = |name: &str| of_one.iter().find(|member| member.name() == name).cloned();
        let ensemble = Arc::new(Ensemble::new(config.clone(), 1, member, common).unwrap());
        let (_, in_force) = watch::channel(Arc::clone(&ensemble));
        Self { members, student, config, service: EnsembleService::new(in_force), ensemble }
    }

    /// Every member forgets a session once, when it would have read so many tokens.
    fn forget_once(&self, at: usize) {
        for member in &self.members {
            let mut knows = true;
            member.follow(move |read| {
                if knows && read == at {
                    knows = false;
                    return Act::Fail(ReplicaError::UnknownSession);
                }
                Act::Answer
            });
        }
    }

    async fn stream(
        &self,
        request: GenerateRequest,
    ) -> Result<impl futures::Stream<Item = Result<GenerateReply, Status>> + Unpin + use<>, Status> {
        Ok(self.service.generate(Request::new(request)).await?.into_inner())
    }

    async fn generate(&self, request: GenerateRequest) -> Result<Vec<GenerateReply>, Status> {
        let stream = self.stream(request).await?;
        stream.collect::<Vec<_>>().await.into_iter().collect()
    }

    async fn complete(&self, request: GenerateRequest) -> Result<CompleteReply, Status> {
        Ok(self.service.complete(Request::new(request)).await?.into_inner())
    }

    async fn score(&self, request: ScoreRequest) -> Result<ScoreReply, Status> {
        Ok(self.service.score(Request::new(request)).await?.into_inner())
    }

    async fn predict(&self, request: PredictRequest) -> Result<PredictReply, Status> {
        Ok(self.service.predict(Request::new(request)).await?.into_inner())
    }

    async fn status(&self) -> StatusReply {
        let reply = self.service.status(Request::new(StatusRequest {})).await;
        reply.unwrap().into_inner()
    }

    /// The token that the member drawn for this index draws, from all members.
    fn drawn(&self, prefix: &[u32], seed: u64, index: u32) -> u32 {
        self.drawn_by(&[0, 1, 2], prefix, seed, index)
    }

    /// The token that the member drawn for this index among these draws.
    fn drawn_by(&self, members: &[usize], prefix: &[u32], seed: u64, index: u32) -> u32 {
        let weighted = members.iter().map(|member| (*member, WEIGHTS[*member]));
        let drawing = drawing_member(seed, index, weighted).unwrap();
        let row = self.members[drawing].model.logits(prefix);
        chorus_simd::draw(&row, chorus_simd::norm(&row), uniform(seed, index)) as u32
    }

    /// What the configured rule makes of these participants after a prefix, in this process.
    fn fused<T>(&self, participants: &[String], prefix: &[u32], make: impl FnOnce(Fused<'_>) -> T) -> T {
        let present = |index: &usize| participants.iter().any(|name| name == NAMES[*index]);
        let present: Vec<usize> = (0..3).filter(present).collect();
        assert_eq!(present.len(), participants.len(), "{participants:?}");
        let rows = present.iter().map(|index| self.members[*index].model.rows([prefix].into_iter()));
        let rows: Vec<_> = rows.collect();
        let rows = present.iter().zip(&rows);
        let rows: Vec<_> = rows.map(|(index, rows)| (WEIGHTS[*index], rows.row(0).unwrap())).collect();
        make(fuse(&self.config.fusion, &rows, &mut Scratch::default()).unwrap())
    }

    /// Every token's log-probability is what fusion in this process gives for the participants that it names.
    fn assert_fused_in_process(&self, prompt: &[u32], replies: &[GenerateReply]) {
        let mut prefix = prompt.to_vec();
        for reply in replies.iter().filter(|reply| reply.token.is_some()) {
            let token = reply.token.as_ref().unwrap();
            self.fused(&participation(reply).participants, &prefix, |fused| match fused {
                Fused::Distribution(distribution) => {
                    let expected = distribution.log_prob(token.id).unwrap();
                    assert_eq!(token.log_prob.unwrap().to_bits(), expected.to_bits());
                }
                Fused::Winner(winner) => {
                    assert_eq!((token.id, token.votes.unwrap().count), (winner.id, winner.votes));
                }
            });
            prefix.push(token.id);
        }
    }
}

fn ids(tokens: &[u32]) -> Option<Input> {
    let ids = tokens.iter().map(|token| i64::from(*token)).collect();
    Some(Input { input: Some(input::Input::Tokens(TokenIds { ids })) })
}

fn text(text: &str) -> Option<Input> {
    Some(Input { input: Some(input::Input::Text(text.to_owned())) })
}

fn request(prompt: &[u32], max_tokens: u32, seed: u64) -> GenerateRequest {
    GenerateRequest {
        prompt: ids(prompt),
        max_tokens: Some(max_tokens),
        sampling: Some(SamplingOptions { seed: Some(seed), ..SamplingOptions::default() }),
        log_probs: true,
        ..GenerateRequest::default()
    }
}

fn participation(reply: &GenerateReply) -> &Participation {
    reply.participation.as_ref().expect("no message without its participants")
}

fn tokens(replies: &[GenerateReply]) -> Vec<u32> {
    let tokens = replies.iter().filter_map(|reply| reply.token.as_ref());
    tokens.map(|token| token.id).collect()
}

fn joined(replies: &[GenerateReply]) -> String {
    replies.iter().map(|reply| reply.text.as_str()).collect()
}

/// The members that are missing from each token.
fn missing(replies: &[GenerateReply]) -> Vec<Vec<&str>> {
    let tokens = replies.iter().filter(|reply| reply.token.is_some());
    let names = |reply| {
        let missing = &participation(reply).missing;
        missing.iter().map(|member| member.name.as_str()).collect()
    };
    tokens.map(names).collect()
}
