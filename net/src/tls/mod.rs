//! TLS: what a server or a client shows and trusts, as PEM texts, and what rustls makes of it. What is in use can be replaced while
//! connections come and go.
//!
//! Knows nothing about files, or about what is said over a connection.

mod half_open;
mod material;
mod sentences;
mod server;
mod transport;
mod trust;

use std::sync::{Arc, PoisonError, RwLock};

pub use material::{Identity, TlsError};
pub use server::{ServerSettings, ServerSetup, ServerTls};
pub use transport::Transport;
pub use trust::{ClientSettings, ClientSetup, ClientTls};

pub(crate) use sentences::of_client as sentence_of_client;

/// The protocol that is negotiated: gRPC is HTTP/2.
const HTTP_2: &[u8] = b"h2";
/// And what browsers are spoken with.
const HTTP_1: &[u8] = b"http/1.1";

/// What is in use, by everybody who has a clone.
#[derive(Debug)]
struct InUse<T>(Arc<RwLock<Arc<T>>>);

impl<T> InUse<T> {
    fn new(setup: Arc<T>) -> Self {
        Self(Arc::new(RwLock::new(setup)))
    }

    fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, setup: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = setup;
    }
}

impl<T> Clone for InUse<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}
