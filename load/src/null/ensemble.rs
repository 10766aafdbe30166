//! An ensemble that answers at once, to measure whoever asks. Knows nothing about models or rules.

use std::{io, net::SocketAddr};

use chorus_proto::v1::{
    ClassifyReply, ClassifyRequest, CompleteReply, DistributionsReply, DistributionsRequest, GenerateReply,
    GenerateRequest, GeneratedToken, GenerationEnd, Input, Participation, PredictReply, PredictRequest,
    RankReply, RankRequest, RequestLimits, ScoreReply, ScoreRequest, StatusReply, StatusRequest,
    TokenizerChunk, TokenizerRequest,
    ensemble_server::{Ensemble, EnsembleServer},
    generation_end::Reason,
    input,
};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tonic::{Request, Response, Status};

use super::{ServerThread, server};

/// Members that every answer names, so that messages are as long as an ensemble's.
const MEMBERS: [&str; 3] = ["alto", "bass", "tenor"];
/// Tokens of an answer where the request does not say.
const DEFAULT_TOKENS: u32 = 64;
/// Of each of them.
const TEXT: &str = " la";
/// Of the vocabulary that its status tells.
const VOCABULARY_SIZE: u32 = 512;

/// A null ensemble on loopback, until it is dropped.
#[derive(Debug)]
pub struct NullEnsemble {
    address: Option<SocketAddr>,
    _thread: ServerThread,
}

#[derive(Debug)]
struct Service;

impl NullEnsemble {
    /// Starts it, on loopback.
    ///
    /// # Errors
    /// The system gives no thread or no port.
    pub fn start() -> io::Result<Self> {
        let router = server().add_service(EnsembleServer::new(Service));
        let (thread, addresses) = ServerThread::start("null-server", vec![router])?;
        Ok(Self { address: addresses.first().copied(), _thread: thread })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// Never: a server that was started listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.address.ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }
}

fn participation() -> Participation {
    Participation { participants: MEMBERS.map(str::to_owned).into(), ..Participation::default() }
}

/// As many as there are ids, or bytes.
fn tokens(input: Option<&Input>) -> u32 {
    let count = match input.and_then(|input| input.input.as_ref()) {
        Some(input::Input::Text(text)) => text.len(),
        Some(input::Input::Tokens(tokens)) => tokens.ids.len(),
        None => 0,
    };
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn token(index: u32) -> GeneratedToken {
    GeneratedToken { id: index % VOCABULARY_SIZE, index, ..GeneratedToken::default() }
}

fn end(request: &GenerateRequest, generated_tokens: u32) -> GenerationEnd {
    GenerationEnd {
        reason: Reason::MaxTokens.into(),
        prompt_tokens: tokens(request.prompt.as_ref()),
        generated_tokens,
        ..GenerationEnd::default()
    }
}

#[tonic::async_trait]
impl Ensemble for Service {
    type GenerateStream = BoxStream<'static, Result<GenerateReply, Status>>;
    type TokenizerStream = BoxStream<'static, Result<TokenizerChunk, Status>>;
    type DistributionsStream = BoxStream<'static, Result<DistributionsReply, Status>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = request.into_inner();
        let generated_tokens = request.max_tokens.unwrap_or(DEFAULT_TOKENS);
        let token = |index| GenerateReply {
            token: Some(token(index)),
            text: TEXT.to_owned(),
            participation: Some(participation()),
            end: None,
        };
        let end = Some(end(&request, generated_tokens));
        let end = GenerateReply { participation: Some(participation()), end, ..Default::default() };
        let replies = (0..generated_tokens).map(token).chain([end]).map(Ok);
        // One message at a time, as tokens come from a model: those of other calls get their turns in between.
        let in_turns = stream::iter(replies).then(async |reply| {
            tokio::task::yield_now().await;
            reply
        });
        Ok(Response::new(in_turns.boxed()))
    }

    async fn complete(&self, request: Request<GenerateRequest>) -> Result<Response<CompleteReply>, Status> {
        let request = request.into_inner();
        let generated_tokens = request.max_tokens.unwrap_or(DEFAULT_TOKENS);
        Ok(Response::new(CompleteReply {
            tokens: (0..generated_tokens).map(token).collect(),
            text: TEXT.repeat(generated_tokens as usize),
            participation: Some(participation()),
            end: Some(end(&request, generated_tokens)),
        }))
    }

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreReply>, Status> {
        let tokens = tokens(request.get_ref().input.as_ref());
        Ok(Response::new(ScoreReply {
            tokens,
            log_prob: Some(-f64::from(tokens)),
            participation: Some(participation()),
            ..ScoreReply::default()
        }))
    }

    async fn predict(&self, _: Request<PredictRequest>) -> Result<Response<PredictReply>, Status> {
        Ok(Response::new(PredictReply { participation: Some(participation()), ..PredictReply::default() }))
    }

    async fn rank(&self, _: Request<RankRequest>) -> Result<Response<RankReply>, Status> {
        Ok(Response::new(RankReply { participation: Some(participation()), ..RankReply::default() }))
    }

    async fn classify(&self, _: Request<ClassifyRequest>) -> Result<Response<ClassifyReply>, Status> {
        Ok(Response::new(ClassifyReply { participation: Some(participation()), ..ClassifyReply::default() }))
    }

    async fn distributions(
        &self,
        _: Request<DistributionsRequest>,
    ) -> Result<Response<Self::DistributionsStream>, Status> {
        let reply = DistributionsReply { participation: Some(participation()), ..Default::default() };
        Ok(Response::new(stream::iter([Ok(reply)]).boxed()))
    }

    async fn tokenizer(
        &self,
        _: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        Ok(Response::new(stream::empty().boxed()))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(StatusReply {
            vocabulary_size: VOCABULARY_SIZE,
            limits: Some(RequestLimits {
                max_input_tokens: u32::MAX,
                max_generated_tokens: u32::MAX,
                max_input_bytes: u32::MAX,
                max_sessions: u32::MAX,
                max_top_n: u32::MAX,
                max_tokens_in_progress: u32::MAX,
                ..RequestLimits::default()
            }),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            serving: true,
            ..StatusReply::default()
        }))
    }
}
