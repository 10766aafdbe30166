//! An ensemble of which every answer follows from the request in an obvious way.

use std::sync::{Arc, Mutex};

use chorus_proto::v1::ensemble_server::Ensemble;
use chorus_proto::v1::generation_end::Reason;
use chorus_proto::v1::*;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// What it was asked, and how its answers go.
#[derive(Debug)]
pub(super) struct Scripted {
    pub(super) generations: Mutex<Vec<GenerateRequest>>,
    /// `authorization`, and the peer, of the last call.
    pub(super) last_call: Mutex<(tonic::metadata::MetadataMap, Option<std::net::SocketAddr>)>,
    /// Generations of "endless" that go on.
    pub(super) endless: watch::Sender<usize>,
}

impl Default for Scripted {
    fn default() -> Self {
        Self { generations: Mutex::default(), last_call: Mutex::default(), endless: watch::Sender::new(0) }
    }
}

/// The same, as a service.
pub(super) struct Shared(pub(super) Arc<Scripted>);

/// Counted while it is there.
struct Endless(Arc<Scripted>);

impl Drop for Endless {
    fn drop(&mut self) {
        self.0.endless.send_modify(|count| *count -= 1);
    }
}

pub(super) fn participation() -> Participation {
    let tenor = MissingMember { name: "tenor".into(), reason: "it is gone".into(), tokens: Vec::new() };
    Participation { participants: vec!["alto".into()], missing: vec![tenor], ..Participation::default() }
}

fn text(input: Option<Input>) -> String {
    match input.and_then(|input| input.input) {
        Some(input::Input::Text(text)) => text,
        _ => String::new(),
    }
}

fn token(index: u32) -> GenerateReply {
    let candidate = TokenCandidate {
        id: 7,
        text: "a".into(),
        probability: 0.25,
        member_probabilities: vec![0.5],
        ..TokenCandidate::default()
    };
    let token = GeneratedToken {
        id: 7,
        index,
        log_prob: Some(f64::NEG_INFINITY),
        candidates: vec![candidate],
        ..GeneratedToken::default()
    };
    GenerateReply { token: Some(token), text: "a".into(), participation: Some(participation()), end: None }
}

fn end() -> GenerateReply {
    let end = GenerationEnd {
        reason: Reason::MaxTokens.into(),
        seed: 1 << 60,
        generated_tokens: 2,
        ..GenerationEnd::default()
    };
    GenerateReply { end: Some(end), participation: Some(participation()), ..GenerateReply::default() }
}

fn refusal(prompt: &str) -> Option<Status> {
    match prompt {
        "" => Some(Status::invalid_argument("prompt: the text is empty; allowed: 1 to 9 bytes")),
        "detailed" => {
            let details = ErrorDetails::with_bad_request_violation("sampling.top_p", "too large");
            Some(Status::with_error_details(tonic::Code::InvalidArgument, "top_p is too large", details))
        }
        "full" => {
            let details = ErrorDetails::with_retry_info(Some(std::time::Duration::from_millis(1500)));
            Some(Status::with_error_details(tonic::Code::ResourceExhausted, "the line is full", details))
        }
        "secret" => {
            let mut status = Status::unauthenticated("authorization: a token is needed");
            status.metadata_mut().insert("www-authenticate", "Bearer".parse().unwrap());
            Some(status)
        }
        "gone" => Some(Status::unavailable("too few members: are missing")),
        _ => None,
    }
}

impl Shared {
    fn note<T>(&self, request: Request<T>) -> T {
        *self.0.last_call.lock().unwrap() = (request.metadata().clone(), request.remote_addr());
        request.into_inner()
    }
}

#[tonic::async_trait]
impl Ensemble for Shared {
    type GenerateStream = BoxStream<'static, Result<GenerateReply, Status>>;
    type DistributionsStream = BoxStream<'static, Result<DistributionsReply, Status>>;
    type TokenizerStream = BoxStream<'static, Result<TokenizerChunk, Status>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = self.note(request);
        self.0.generations.lock().unwrap().push(request.clone());
        let prompt = text(request.prompt);
        if let Some(refusal) = refusal(&prompt) {
            return Err(refusal);
        }
        Ok(Response::new(match prompt.as_str() {
            "endless" => {
                self.0.endless.send_modify(|count| *count += 1);
                let counted = Endless(Arc::clone(&self.0));
                let replies = stream::iter(0..).map(move |index| {
                    let _counted = &counted;
                    Ok(token(index))
                });
                // As fast as they are read.
                replies
                    .then(|reply| async {
                        tokio::task::yield_now().await;
                        reply
                    })
                    .boxed()
            }
            "breaks" => {
                stream::iter([Ok(token(0)), Err(Status::unavailable("everybody is gone")), Ok(token(1))])
                    .boxed()
            }
            _ => stream::iter([Ok(token(0)), Ok(token(1)), Ok(end())]).boxed(),
        }))
    }

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreReply>, Status> {
        let text = text(self.note(request).input);
        let tokens = u32::try_from(text.len()).unwrap();
        let mut response =
            Response::new(ScoreReply { tokens, log_prob: Some(-2.5), ..ScoreReply::default() });
        response.metadata_mut().insert("x-request-id", "score-1".parse().unwrap());
        Ok(response)
    }

    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictReply>, Status> {
        let text = text(self.note(request).prefix);
        let candidate = Candidate { id: 1, text, probability: 0.5, votes: None };
        Ok(Response::new(PredictReply { candidates: vec![candidate], ..PredictReply::default() }))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        self.note(request);
        let alto =
            MemberStatus { name: "alto".into(), parameters: 1 << 60, health: 2, ..MemberStatus::default() };
        Ok(Response::new(StatusReply {
            members: vec![alto],
            rule: Rule::LogLinear.into(),
            serving: true,
            ..StatusReply::default()
        }))
    }

    async fn rank(&self, _: Request<RankRequest>) -> Result<Response<RankReply>, Status> {
        Err(Status::unimplemented("not asked by the page"))
    }

    async fn classify(&self, _: Request<ClassifyRequest>) -> Result<Response<ClassifyReply>, Status> {
        Err(Status::unimplemented("not asked by the page"))
    }

    async fn complete(&self, _: Request<GenerateRequest>) -> Result<Response<CompleteReply>, Status> {
        Err(Status::unimplemented("not asked by the page"))
    }

    async fn distributions(
        &self,
        _: Request<DistributionsRequest>,
    ) -> Result<Response<Self::DistributionsStream>, Status> {
        Err(Status::unimplemented("not asked by the page"))
    }

    async fn tokenizer(
        &self,
        _: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        Err(Status::unimplemented("not asked by the page"))
    }
}
