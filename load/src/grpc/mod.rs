//! Calls of `chorus.v1.Ensemble` over a connection. Knows nothing about when they are made or what is measured.

mod glance;

use std::{cell::Cell, error::Error as _, sync::Arc, time::Duration};

use chorus_net::Wire;
use chorus_proto::v1::{GenerateRequest, ScoreRequest};
use http::uri::PathAndQuery;
use tonic::{Code, Request, Status, client::Grpc};
use tonic_prost::ProstCodec;

use crate::{
    drive::Target,
    measure::{Answer, Failure},
    run::live::Live,
    workload::Call,
};
use glance::{CompleteGlance, GenerateGlance, Missing, ScoreGlance};

/// A few connections to one ensemble, used in turns: many calls share one.
pub(crate) struct Connections {
    channels: Vec<Wire>,
    next: Cell<usize>,
    timeout: Option<Duration>,
    live: Arc<Live>,
}

impl Connections {
    /// `timeout` goes with every call as its deadline; `live` is told of everything that comes, for whoever watches.
    pub(crate) fn new(channels: Vec<Wire>, timeout: Option<Duration>, live: Arc<Live>) -> Self {
        Self { channels, next: Cell::new(0), timeout, live }
    }

    async fn client(&self) -> Result<Grpc<Wire>, Status> {
        let turn = self.next.replace(self.next.get().wrapping_add(1));
        let channel = self.channels.get(turn % self.channels.len().max(1));
        let channel = channel.ok_or_else(|| Status::unavailable("there is no connection"))?;
        let mut client = Grpc::new(channel.clone());
        client.ready().await.map_err(Status::from_error)?;
        Ok(client)
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(timeout) = self.timeout {
            request.set_timeout(timeout);
        }
        request
    }

    async fn generate(&self, request: GenerateRequest, on_token: &mut dyn FnMut()) -> Result<Answer, Status> {
        let path = PathAndQuery::from_static("/chorus.v1.Ensemble/Generate");
        let codec = ProstCodec::<GenerateRequest, GenerateGlance>::default();
        let mut client = self.client().await?;
        let replies = client.server_streaming(self.request(request), path, codec).await?;
        let mut replies = replies.into_inner();
        let (mut answer, mut whole) = (Answer::default(), false);
        while let Some(reply) = replies.message().await? {
            if reply.token.is_some() {
                on_token();
                self.live.tokens(1);
            }
            answer.degraded |= Missing::is_degraded(reply.participation.as_ref());
            if let Some(end) = reply.end {
                answer.prompt_tokens = end.prompt_tokens;
                whole = true;
            }
        }
        if whole {
            Ok(answer)
        } else {
            Err(Status::unknown("the answer broke off: its last message did not come"))
        }
    }

    async fn complete(&self, request: GenerateRequest) -> Result<Answer, Status> {
        let path = PathAndQuery::from_static("/chorus.v1.Ensemble/Complete");
        let codec = ProstCodec::<GenerateRequest, CompleteGlance>::default();
        let reply = self.client().await?.unary(self.request(request), path, codec).await?.into_inner();
        let generated_tokens = u32::try_from(reply.tokens.len()).unwrap_or(u32::MAX);
        self.live.tokens(u64::from(generated_tokens));
        Ok(Answer {
            prompt_tokens: reply.end.map_or(0, |end| end.prompt_tokens),
            generated_tokens,
            degraded: Missing::is_degraded(reply.participation.as_ref()),
            ..Answer::default()
        })
    }

    async fn score(&self, request: ScoreRequest) -> Result<Answer, Status> {
        let path = PathAndQuery::from_static("/chorus.v1.Ensemble/Score");
        let codec = ProstCodec::<ScoreRequest, ScoreGlance>::default();
        let reply = self.client().await?.unary(self.request(request), path, codec).await?.into_inner();
        Ok(Answer {
            scored_tokens: reply.tokens,
            degraded: Missing::is_degraded(reply.participation.as_ref()),
            ..Answer::default()
        })
    }
}

impl Target for Connections {
    async fn call(&self, call: Call, on_token: &mut dyn FnMut()) -> Result<Answer, Failure> {
        let result = match call {
            Call::Generate(request) => self.generate(request, on_token).await,
            Call::Complete(request) => self.complete(request).await,
            Call::Score(request) => self.score(request).await,
        };
        match &result {
            Ok(answer) => self.live.answered(answer.scored_tokens),
            Err(_) => self.live.failed(),
        }
        result.map_err(|status| failure(&status))
    }
}

/// A connection that broke has no code of the server's: whatever the transport makes of it, nobody is there.
fn failure(status: &Status) -> Failure {
    let Some(mut cause) = status.source() else {
        return Failure { code: status.code(), message: status.message().to_owned() };
    };
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let code = match status.code() {
        Code::Unknown | Code::Internal | Code::Cancelled => Code::Unavailable,
        other => other,
    };
    Failure { code, message: format!("the connection broke: {cause}") }
}
