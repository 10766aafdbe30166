//! [`Dialer`]: how a client connects, in plain text or in TLS, so that what goes wrong is said in words.
//!
//! Knows nothing about what is asked over the connection.

use std::error::Error as StdError;

use http::uri::Scheme;
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::{Channel, Endpoint};
use tower::Service as _;

use crate::heard::{Heard, explained};
use crate::tls::ClientTls;
use crate::wire::{LastWords, Wire};

/// A name that no certificate can be for.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no name of a server; allowed: a DNS name or an IP address")]
pub struct InvalidName(String);

/// Connects to one endpoint, again and again.
#[derive(Clone, Debug)]
pub struct Dialer {
    endpoint: Endpoint,
    secure: Option<Secure>,
    bearer: Option<HeaderValue>,
}

#[derive(Clone, Debug)]
struct Secure {
    tls: ClientTls,
    name: ServerName<'static>,
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// An endpoint at `http://host:port` or `https://host:port`. Requests name it as it is; that TLS is spoken there is the
/// [`Dialer`]'s.
pub fn endpoint_at(uri: Uri) -> Endpoint {
    if uri.scheme() != Some(&Scheme::HTTPS) {
        return Endpoint::from(uri);
    }
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    match Uri::from_parts(parts) {
        Ok(plain) => Endpoint::from(plain).origin(uri),
        // Never, since another scheme makes no URI a wrong one.
        Err(_) => Endpoint::from(uri),
    }
}

impl Dialer {
    /// Plain text.
    #[must_use]
    pub fn plain(endpoint: Endpoint) -> Self {
        Self { endpoint, secure: None, bearer: None }
    }

    /// TLS, where the server's certificate has to be for this name, or address.
    ///
    /// # Errors
    /// It is no name.
    pub fn secure(endpoint: Endpoint, tls: ClientTls, name: &str) -> Result<Self, InvalidName> {
        // Of an address of IPv6 the brackets belong to the URI.
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| InvalidName(name.to_owned()))?;
        Ok(Self { endpoint, secure: Some(Secure { tls, name }), bearer: None })
    }

    /// A token that goes with every request, where it is one that can.
    #[must_use]
    pub fn with_bearer(self, token: &str) -> Option<Self> {
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        bearer.set_sensitive(true);
        Some(Self { bearer: Some(bearer), ..self })
    }

    /// Connects, within the endpoint's own time, which the TLS handshake is a part of.
    ///
    /// # Errors
    /// Nobody is there, or it is not whom it should be; the innermost cause says which.
    pub async fn connect(&self) -> Result<Wire, tonic::transport::Error> {
        let words = LastWords::default();
        let channel = self.endpoint.connect_with_connector(self.connector(&words)).await?;
        Ok(Wire::new(channel, words, self.bearer.clone()))
    }

    /// A channel that connects when it is used first, and again whenever it has to. No token goes with its requests.
    pub fn connect_lazily(&self) -> Channel {
        self.endpoint.connect_with_connector_lazy(self.connector(&LastWords::default()))
    }

    fn connector(
        &self,
        words: &LastWords,
    ) -> impl tower::Service<Uri, Response = TokioIo<Heard>, Error = BoxError, Future: Send> + Clone + Send + use<>
    {
        let secure = self.secure.clone();
        let mut sockets = HttpConnector::new();
        sockets.set_nodelay(true);
        sockets.set_connect_timeout(self.endpoint.get_connect_timeout());
        sockets.set_keepalive(self.endpoint.get_tcp_keepalive());
        let words = words.clone();
        tower::service_fn(move |uri| dial(sockets.clone(), uri, secure.clone(), words.clone()))
    }
}

async fn dial(
    mut sockets: HttpConnector,
    uri: Uri,
    secure: Option<Secure>,
    words: LastWords,
) -> Result<TokioIo<Heard>, BoxError> {
    words.set(None);
    let socket = sockets.call(uri).await?.into_inner();
    let Some(Secure { tls, name }) = secure else {
        return Ok(TokioIo::new(Heard::plain(socket, words)));
    };
    let stream = tls.connector().connect(name, socket).await;
    let stream = stream.map_err(|error| explained(error, "in the TLS handshake"))?;
    Ok(TokioIo::new(Heard::tls(stream, words)))
}
