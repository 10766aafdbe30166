//! [`Caller`]: whose call it is; goes with everything that the ensemble is asked because of it.
//!
//! Knows nothing about what is asked.

use tonic::metadata::MetadataMap;
use tonic::{Extensions, Request};

/// The metadata and extensions of a call: credentials, deadline, trace, the peer's address.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    metadata: MetadataMap,
    extensions: Extensions,
}

impl Caller {
    /// And what the call is about.
    pub(crate) fn of<T>(request: Request<T>) -> (Self, T) {
        let (metadata, extensions, message) = request.into_parts();
        (Self { metadata, extensions }, message)
    }

    /// The same without the call's deadline: that of a stream is not that of each request on it, and ends it as a whole.
    pub(crate) fn without_deadline(mut self) -> Self {
        self.metadata.remove("grpc-timeout");
        self
    }

    /// A request in the caller's name.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), self.extensions.clone(), message)
    }
}
