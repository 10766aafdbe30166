//! The page over a scripted ensemble, on a real connection. Knows nothing about real ensembles.

mod answers;
mod browsers;
mod refusals;
mod scripted;

use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::server::TcpIncoming;

use crate::Page;
use scripted::Scripted;

/// A page that is served.
struct Served {
    ensemble: Arc<Scripted>,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: AbortOnDropHandle<()>,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: http::HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

impl Served {
    async fn start() -> Self {
        let ensemble = Arc::new(Scripted::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = Page::new(scripted::Shared(Arc::clone(&ensemble)), Some(&[])).unwrap();
        let shutdown = CancellationToken::new();
        let serving = page.serve(TcpIncoming::from(listener), shutdown.clone().cancelled_owned());
        Self { ensemble, address, shutdown, serving: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    /// A request over a connection of its own. Where it has a body it is JSON unless it says otherwise.
    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<String>,
    ) -> http::Response<hyper::body::Incoming> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::builder().method(method).uri(path);
        let has = |name: &str| headers.iter().any(|(other, _)| *other == name);
        if !has("host") {
            request = request.header("host", self.address.to_string());
        }
        if !has("content-type") {
            request = request.header("content-type", "application/json");
        }
        request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        sender.send_request(request.body(body.into()).unwrap()).await.unwrap()
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<String>,
    ) -> Answer {
        let (parts, body) = self.send(method, path, headers, body).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    async fn post(&self, path: &str, body: impl Into<String>) -> Answer {
        self.ask("POST", path, &[], body).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }
}
