//! [`Wire`]: what a client asks over. Knows nothing about what it asks.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _};
use http::HeaderValue;
use http::header::AUTHORIZATION;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::Service;

/// A channel. Where the connection breaks as a request begins, its error says why: that of the channel itself may only say that the
/// connection is closed, since a request is not always there when the connection learns the reason.
#[derive(Clone, Debug)]
pub struct Wire {
    channel: Channel,
    words: LastWords,
    bearer: Option<HeaderValue>,
}

/// What a connection was ended with, in words, if there are any.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastWords(Arc<Mutex<Option<String>>>);

/// The other side ended the connection, and this is why.
#[derive(Debug)]
struct Ended(String);

type BoxError = Box<dyn StdError + Send + Sync>;

impl LastWords {
    pub(crate) fn set(&self, words: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = words;
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An error is what was said, where something was.
    fn explain(&self, error: tonic::transport::Error) -> BoxError {
        match self.get() {
            Some(words) => Ended(words).into(),
            None => error.into(),
        }
    }
}

impl Wire {
    pub(crate) fn new(channel: Channel, words: LastWords, bearer: Option<HeaderValue>) -> Self {
        Self { channel, words, bearer }
    }
}

impl From<Channel> for Wire {
    /// A channel that was made in some other way.
    fn from(channel: Channel) -> Self {
        Self { channel, words: LastWords::default(), bearer: None }
    }
}

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context).map_err(|error| self.words.explain(error))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(bearer) = &self.bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        let words = self.words.clone();
        let response = self.channel.call(request);
        async move { response.await.map_err(|error| words.explain(error)) }.boxed()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl StdError for Ended {}
