//! [`Gate`]: lets in whoever brings a token of the right scope. One layer over everything that a port serves.
//!
//! Knows nothing about what is behind it.

use std::task::{Context, Poll};

use chorus_proto::v1::ErrorCode;
use futures::future::{Either, Ready, ready};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use tonic::Status;
use tonic::metadata::MetadataValue;
use tower::{Layer, Service};

use super::TokensInUse;
use super::tokens::{Scope, TokenId};
use crate::failure::Failure;

/// Open to everybody: who looks after processes has no tokens.
const HEALTH: &str = "/grpc.health.v1.Health/";
/// Open to every token, or to everybody where that is configured.
const REFLECTION: &str = "/grpc.reflection.";
/// What RFC 6750, section 3 says to whoever is refused.
const CHALLENGE: &str = "www-authenticate";

/// Of one port. Without tokens everybody is let in.
#[derive(Clone)]
pub(crate) struct Gate {
    tokens: Option<TokensInUse>,
    scope: Scope,
    open_reflection: bool,
}

/// What is behind the gate.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    inner: S,
    gate: Gate,
}

impl Gate {
    pub(super) fn new(tokens: Option<TokensInUse>, scope: Scope, open_reflection: bool) -> Self {
        Self { tokens, scope, open_reflection }
    }

    /// Who it is that is let in, if that is known.
    fn admit(&self, path: &str, headers: &HeaderMap) -> Result<Option<TokenId>, Status> {
        let Some(tokens) = &self.tokens else {
            return Ok(None);
        };
        let reflection = path.starts_with(REFLECTION);
        if path.starts_with(HEALTH) || (reflection && self.open_reflection) {
            return Ok(None);
        }
        let Some(given) = headers.get(AUTHORIZATION) else {
            return Err(self.unknown("there is no token", "Bearer"));
        };
        let grant = bearer(given.as_bytes()).and_then(|secret| tokens.get().find(secret));
        let Some(grant) = grant else {
            return Err(self.unknown("nobody knows this token", "Bearer error=\"invalid_token\""));
        };
        if reflection || grant.allows(self.scope) {
            return Ok(Some(grant.id));
        }
        let name = self.scope.name();
        let failure = Failure::new(
            ErrorCode::PermissionDenied,
            format!("authorization: the token has other scopes; allowed: one with the scope {name:?}"),
        );
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{name}\"");
        Err(challenged(failure.with("scope", name), &challenge))
    }

    /// The same for a call that came in another form, with its credentials as metadata.
    pub(crate) fn pass<T>(&self, mut request: tonic::Request<T>) -> Result<tonic::Request<T>, Status> {
        if let Some(who) = self.admit("", request.metadata().as_ref())? {
            request.extensions_mut().insert(who);
        }
        Ok(request)
    }

    fn unknown(&self, problem: &str, challenge: &str) -> Status {
        let name = self.scope.name();
        let message = format!(
            "authorization: {problem}; allowed: \"Bearer TOKEN\" with a token of the scope {name:?} (--token-file)"
        );
        challenged(Failure::new(ErrorCode::Unauthenticated, message).with("scope", name), challenge)
    }
}

fn challenged(failure: Failure, challenge: &str) -> Status {
    let mut status = Status::from(failure);
    if let Ok(challenge) = MetadataValue::try_from(challenge) {
        status.metadata_mut().insert(CHALLENGE, challenge);
    }
    status
}

/// Of `Bearer SECRET` the secret; how the first word is written does not matter (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, secret) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| secret.trim_ascii())
}

impl<S> Layer<S> for Gate {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, gate: self.clone() }
    }
}

impl<S, A, B> Service<http::Request<A>> for Guarded<S>
where
    S: Service<http::Request<A>, Response = http::Response<B>>,
    B: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<S::Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<A>) -> Self::Future {
        match self.gate.admit(request.uri().path(), request.headers()) {
            Ok(who) => {
                // Whoever shares places between callers knows them by this.
                if let Some(who) = who {
                    request.extensions_mut().insert(who);
                }
                Either::Left(self.inner.call(request))
            }
            Err(status) => Either::Right(ready(Ok(status.into_http()))),
        }
    }
}
