//! An ensemble of which every answer follows from the request in an obvious way. A token is a byte of the text.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use chorus_proto::v1::ensemble_server::Ensemble;
use chorus_proto::v1::generation_end::Reason;
use chorus_proto::v1::member_status::Health;
use chorus_proto::v1::*;
use futures::stream::{self, BoxStream, StreamExt as _};
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

/// What the ensemble was asked, and how its answers go.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    pub(super) generations: Mutex<Vec<GenerateRequest>>,
    pub(super) scorings: Mutex<Vec<ScoreRequest>>,
    pub(super) predictions: Mutex<Vec<PredictRequest>>,
    /// `authorization`, `grpc-timeout` and an extension of the last call.
    pub(super) last_call: Mutex<(Option<String>, Option<String>, Option<u32>)>,
    /// Generations of the text "wait" that have begun and not ended.
    pub(super) waiting: AtomicUsize,
    /// And the most of them at a time.
    pub(super) most_waiting: AtomicUsize,
    pub(super) gate: Gate,
}

/// What "wait" waits for.
#[derive(Debug)]
pub(super) struct Gate(pub(super) Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

/// Counted while it is there.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn ids(input: Option<Input>) -> Result<Vec<u32>, Status> {
    let ids: Vec<u32> = match input.and_then(|input| input.input) {
        Some(input::Input::Text(text)) => text.bytes().map(u32::from).collect(),
        Some(input::Input::Tokens(tokens)) => {
            tokens.ids.iter().map(|id| u32::try_from(*id).unwrap()).collect()
        }
        None => Vec::new(),
    };
    match ids.as_slice() {
        [] => Err(Status::invalid_argument("prompt: the text is empty; allowed: 1 to 9 bytes")),
        b if b == "full".bytes().map(u32::from).collect::<Vec<_>>() => {
            let mut full =
                Status::with_details(Code::ResourceExhausted, "the line is full", "details".into());
            full.metadata_mut().insert("grpc-retry-pushback-ms", "100".parse().unwrap());
            Err(full)
        }
        _ => Ok(ids),
    }
}

fn participation() -> Option<Participation> {
    let tenor =
        MissingMember { name: "tenor".to_owned(), reason: "it is gone".to_owned(), tokens: Vec::new() };
    Some(Participation {
        participants: vec!["alto".to_owned(), "bass".to_owned()],
        missing: vec![tenor],
        ..Participation::default()
    })
}

fn is_vote(fusion: Option<&FusionOptions>) -> bool {
    fusion.is_some_and(|fusion| fusion.rule() == Rule::ThresholdVote)
}

impl Scripted {
    fn note<T>(&self, request: Request<T>) -> T {
        let text = |name: &str| Some(request.metadata().get(name)?.to_str().unwrap().to_owned());
        let seen = (text("authorization"), text("grpc-timeout"), request.extensions().get::<u32>().copied());
        *self.last_call.lock().unwrap() = seen;
        request.into_inner()
    }

    /// The next letters after the last one of the prompt.
    fn generated(request: &GenerateRequest) -> Result<Vec<GeneratedToken>, Status> {
        let last = *ids(request.prompt.clone())?.last().unwrap();
        let token = |index: u32| GeneratedToken {
            id: last + index + 1,
            index,
            log_prob: request.log_probs.then_some(-f64::from(index) - 0.5),
            ..GeneratedToken::default()
        };
        Ok((0..request.max_tokens.unwrap_or(3)).map(token).collect())
    }

    fn end(request: &GenerateRequest, tokens: usize) -> Option<GenerationEnd> {
        let seed = request.sampling.as_ref().and_then(|sampling| sampling.seed).unwrap_or(42);
        let generated_tokens = u32::try_from(tokens).unwrap();
        let best = request.beam.as_ref().and_then(|beam| beam.n_best).unwrap_or_default();
        let hypothesis = |place: u32| Hypothesis {
            text: format!("best {place}"),
            score: -f64::from(place + 1),
            ..Hypothesis::default()
        };
        let hypotheses = (0..best).map(hypothesis).collect();
        let end = GenerationEnd { seed, generated_tokens, hypotheses, ..GenerationEnd::default() };
        Some(GenerationEnd { reason: Reason::MaxTokens.into(), ..end })
    }
}

fn letters(tokens: &[GeneratedToken]) -> String {
    tokens.iter().map(|token| char::from_u32(token.id).unwrap()).collect()
}

#[tonic::async_trait]
impl Ensemble for Scripted {
    type GenerateStream = BoxStream<'static, Result<GenerateReply, Status>>;
    type DistributionsStream = BoxStream<'static, Result<DistributionsReply, Status>>;
    type TokenizerStream = BoxStream<'static, Result<TokenizerChunk, Status>>;

    async fn generate(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStream>, Status> {
        let request = self.note(request);
        self.generations.lock().unwrap().push(request.clone());
        let tokens = Self::generated(&request)?;
        let end = GenerateReply {
            participation: participation(),
            end: Self::end(&request, tokens.len()),
            ..GenerateReply::default()
        };
        let replies = tokens.into_iter().map(|token| GenerateReply {
            text: letters(std::slice::from_ref(&token)),
            token: Some(token),
            participation: participation(),
            end: None,
        });
        Ok(Response::new(stream::iter(replies.chain([end]).map(Ok)).boxed()))
    }

    async fn complete(&self, request: Request<GenerateRequest>) -> Result<Response<CompleteReply>, Status> {
        let request = self.note(request);
        self.generations.lock().unwrap().push(request.clone());
        if request.prompt == Some(Input { input: Some(input::Input::Text("wait".to_owned())) }) {
            let waiting = self.waiting.fetch_add(1, Ordering::SeqCst) + 1;
            let _waiting = Waiting(&self.waiting);
            self.most_waiting.fetch_max(waiting, Ordering::SeqCst);
            self.gate.0.acquire().await.unwrap().forget();
        }
        if request.sampling.as_ref().is_some_and(|sampling| sampling.temperature == Some(-1.0)) {
            return Err(Status::invalid_argument(
                "sampling.temperature: -1 is not allowed; allowed: at least 0",
            ));
        }
        let tokens = Self::generated(&request)?;
        Ok(Response::new(CompleteReply {
            text: letters(&tokens),
            end: Self::end(&request, tokens.len()),
            tokens,
            participation: participation(),
        }))
    }

    async fn score(&self, request: Request<ScoreRequest>) -> Result<Response<ScoreReply>, Status> {
        let request = self.note(request);
        self.scorings.lock().unwrap().push(request.clone());
        let ids = ids(request.input)?;
        let vote = is_vote(request.fusion.as_ref());
        let token_scores = ids.iter().enumerate().map(|(place, id)| TokenScore {
            id: *id,
            log_prob: (!vote).then_some(-(place as f64)),
            member_log_probs: vec![-(place as f64) - 0.25, -(place as f64) - 0.5],
            ..TokenScore::default()
        });
        let member = |name: &str| MemberScore { name: name.to_owned(), ..MemberScore::default() };
        Ok(Response::new(ScoreReply {
            tokens: u32::try_from(ids.len()).unwrap(),
            perplexity: (!vote).then_some(ids.len() as f64),
            members: vec![member("alto"), member("bass")],
            token_scores: if request.per_token { token_scores.collect() } else { Vec::new() },
            participation: participation(),
            ..ScoreReply::default()
        }))
    }

    async fn rank(&self, _: Request<RankRequest>) -> Result<Response<RankReply>, Status> {
        Err(Status::unimplemented("nobody asks this here"))
    }

    async fn classify(&self, _: Request<ClassifyRequest>) -> Result<Response<ClassifyReply>, Status> {
        Err(Status::unimplemented("nobody asks this here"))
    }

    async fn predict(&self, request: Request<PredictRequest>) -> Result<Response<PredictReply>, Status> {
        let request = self.note(request);
        self.predictions.lock().unwrap().push(request.clone());
        let last = *ids(request.prefix)?.last().unwrap();
        let candidate = |place: u32| Candidate {
            id: last + place,
            text: format!("<{place}>"),
            probability: 1.0 / f64::from(place + 2),
            votes: None,
        };
        let candidates = (0..request.top_n.unwrap_or(10)).map(candidate).collect();
        Ok(Response::new(PredictReply {
            candidates,
            participation: participation(),
            ..PredictReply::default()
        }))
    }

    async fn distributions(
        &self,
        _request: Request<DistributionsRequest>,
    ) -> Result<Response<Self::DistributionsStream>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn tokenizer(
        &self,
        _request: Request<TokenizerRequest>,
    ) -> Result<Response<Self::TokenizerStream>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        self.note(request);
        let member = |name: &str, health: Health, reason: &str| MemberStatus {
            name: name.to_owned(),
            health: health.into(),
            reason: reason.to_owned(),
            ..MemberStatus::default()
        };
        Ok(Response::new(StatusReply {
            members: vec![
                member("alto", Health::Up, ""),
                member("bass", Health::Up, ""),
                member("tenor", Health::Down, "it is gone"),
            ],
            serving: true,
            version: "9.9.9".to_owned(),
            ..StatusReply::default()
        }))
    }
}
