//! TLS between a server and clients over real sockets: who gets in, who does not, and what either is told.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use chorus_net::testing::{Authority, Validity};
use chorus_net::{
    ClientSettings, ClientTls, Dialer, Identity, ServerSettings, ServerTls, endpoint_at, secured_connections,
};
use futures::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const NAMES: [&str; 2] = ["127.0.0.1", "worker.test"];

/// A server of health and nothing else, for as long as the test lasts.
async fn serve(tls: Option<ServerTls>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (_reporter, health) = tonic_health::server::health_reporter();
    let incoming = secured_connections(TcpIncoming::from(listener), tls);
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(incoming));
    address
}

fn server(identity: Identity, client_ca: Option<&Authority>) -> ServerTls {
    let settings = ServerSettings { identity, client_ca: client_ca.map(Authority::pem) };
    ServerTls::new(settings.prepare().unwrap())
}

fn client(ca: &Authority, identity: Option<Identity>) -> ClientTls {
    ClientTls::new(ClientSettings { ca: Some(ca.pem()), identity }.prepare().unwrap())
}

/// A call over TLS, or plain, to a server that should be of this name.
async fn call(address: SocketAddr, tls: Option<ClientTls>, name: &str) -> Result<(), String> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = endpoint_at(format!("{scheme}://{address}").parse().unwrap());
    let endpoint = endpoint.connect_timeout(Duration::from_secs(30));
    let dialer = match tls {
        Some(tls) => Dialer::secure(endpoint, tls, name).unwrap(),
        None => Dialer::plain(endpoint),
    };
    let channel = dialer.connect().await.map_err(|error| innermost(&error))?;
    let checked = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    checked.map(|_| ()).map_err(|status| innermost(&status))
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

#[tokio::test]
async fn a_client_believes_a_certificate_of_its_ca_for_the_name_and_now() {
    let (ca, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    for (shown, trusted, name, outcome) in [
        (ca.vouch(&NAMES, Validity::Now), &ca, "127.0.0.1", Ok(())),
        (ca.vouch(&NAMES, Validity::Now), &ca, "worker.test", Ok(())),
        (
            ca.vouch(&NAMES, Validity::Now),
            &stranger,
            "worker.test",
            Err("the server's certificate is of an unknown CA: of none that is trusted here"),
        ),
        (ca.vouch(&NAMES, Validity::Over), &ca, "worker.test", Err("the server's certificate has expired")),
        (
            ca.vouch(&NAMES, Validity::Later),
            &ca,
            "worker.test",
            Err("the server's certificate is not valid yet"),
        ),
        (
            ca.vouch(&["bass.test"], Validity::Now),
            &ca,
            "worker.test",
            Err("the server's certificate is for another name: for bass.test, not for worker.test"),
        ),
    ] {
        let address = serve(Some(server(shown, None))).await;
        let called = call(address, Some(client(trusted, None)), name).await;
        assert_eq!(called, outcome.map_err(str::to_owned));
    }
}

#[tokio::test]
async fn a_server_that_wants_certificates_refuses_strangers_and_says_why() {
    let (ca, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let address = serve(Some(server(ca.vouch(&NAMES, Validity::Now), Some(&ca)))).await;
    for (shown, outcome) in [
        (Some(ca.vouch(&["me"], Validity::Now)), Ok(())),
        (None, Err("the server wants a certificate from its clients, and none was shown")),
        (
            Some(stranger.vouch(&["me"], Validity::Now)),
            Err("the server does not accept our certificate: it is of an unknown CA"),
        ),
        (
            Some(ca.vouch(&["me"], Validity::Over)),
            Err("the server does not accept our certificate: it has expired, or is not valid yet"),
        ),
        (
            Some(ca.vouch(&["me"], Validity::Later)),
            Err("the server does not accept our certificate: it has expired, or is not valid yet"),
        ),
    ] {
        let called = call(address, Some(client(&ca, shown)), "worker.test").await;
        assert_eq!(called, outcome.map_err(str::to_owned));
    }
}

#[tokio::test]
async fn plain_text_and_tls_do_not_meet_and_say_so() {
    let ca = Authority::new("ours");
    let tls = serve(Some(server(ca.vouch(&NAMES, Validity::Now), None))).await;
    let plain = serve(None).await;
    assert_eq!(call(tls, None, "").await.unwrap_err(), "the server speaks TLS: this is plain text");
    let called = call(plain, Some(client(&ca, None)), "127.0.0.1").await;
    assert_eq!(called.unwrap_err(), "the server does not speak TLS");
    assert_eq!(call(plain, None, "").await, Ok(()));
}

#[tokio::test]
async fn what_is_replaced_is_replaced_for_whoever_comes_next() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let tls = server(old.vouch(&NAMES, Validity::Now), Some(&old));
    let address = serve(Some(tls.clone())).await;
    let of = |ca: &Authority| client(ca, Some(ca.vouch(&["me"], Validity::Now)));
    let (knows_old, knows_new) = (of(&old), of(&new));
    let endpoint = endpoint_at(format!("https://{address}").parse().unwrap());
    let dialer = Dialer::secure(endpoint, knows_old.clone(), "worker.test").unwrap();
    let mut before = HealthClient::new(dialer.connect().await.unwrap());
    before.check(HealthCheckRequest::default()).await.unwrap();

    let identity = new.vouch(&NAMES, Validity::Now);
    let settings = ServerSettings { identity, client_ca: Some(new.pem()) };
    tls.replace(settings.prepare().unwrap());
    assert_eq!(call(address, Some(knows_new), "worker.test").await, Ok(()));
    assert!(call(address, Some(knows_old.clone()), "worker.test").await.unwrap_err().contains("unknown CA"));
    before.check(HealthCheckRequest::default()).await.expect("a connection that there is stays");

    let identity = Some(new.vouch(&["me"], Validity::Now));
    knows_old.replace(ClientSettings { ca: Some(new.pem()), identity }.prepare().unwrap());
    assert_eq!(call(address, Some(knows_old), "worker.test").await, Ok(()));
}

#[tokio::test]
async fn who_is_silent_in_a_handshake_holds_up_nobody() {
    let ca = Authority::new("ours");
    let address = serve(Some(server(ca.vouch(&NAMES, Validity::Now), None))).await;
    let mut silent = Vec::new();
    for said in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(said).await.unwrap();
        silent.push(socket);
    }
    assert_eq!(call(address, Some(client(&ca, None)), "127.0.0.1").await, Ok(()));
    for socket in &mut silent {
        let read = socket.try_read(&mut [0; 8]);
        assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it still has time");
    }
}

/// Whatever a server does first: HTTP/2 servers write before they read.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_ends_the_connection() {
    let ca = Authority::new("ours");
    let tls = server(ca.vouch(&NAMES, Validity::Now), None);
    for writes in [false, true] {
        for said in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
            let (near, mut far) = duplex(100);
            far.write_all(said).await.unwrap();
            let incoming = stream::iter([Ok(near)]);
            let mut connections = Box::pin(secured_connections(incoming, Some(tls.clone())));
            let mut near = futures::StreamExt::next(&mut connections).await.unwrap().unwrap();
            let start = Instant::now();
            let error = match writes {
                true => near.write_all(b"settings").await.unwrap_err(),
                false => near.read_to_end(&mut Vec::new()).await.unwrap_err(),
            };
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "{said:?}");
            assert_eq!(start.elapsed(), Duration::from_secs(10));
        }
    }
}

#[test]
fn settings_that_can_t_be_used_are_named() {
    let ca = Authority::new("ours");
    let (one, other) = (ca.vouch(&NAMES, Validity::Now), ca.vouch(&NAMES, Validity::Now));
    let error = |identity: Identity, client_ca: Option<Vec<u8>>| {
        ServerSettings { identity, client_ca }.prepare().unwrap_err().to_string()
    };
    let with_key = |key: &[u8]| Identity { key: key.to_vec(), ..one.clone() };
    assert_eq!(error(with_key(&other.key), None), "key: it is not that of the certificate");
    assert!(error(with_key(b"nothing"), None).starts_with("key: there is none in it; allowed: "));
    let no_certificate = Identity { certificate: Vec::new(), ..one.clone() };
    assert!(error(no_certificate, None).starts_with("certificate: there is none in it; allowed: "));
    let half = b"-----BEGIN CERTIFICATE-----\nAAAA".to_vec();
    assert!(error(one.clone(), Some(half.clone())).starts_with("client_ca: it is no PEM: "));
    assert!(error(one.clone(), Some(Vec::new())).starts_with("client_ca: there is none in it"));
    let settings = ClientSettings { ca: Some(half), identity: None };
    assert!(settings.prepare().unwrap_err().to_string().starts_with("ca: it is no PEM: "));
    assert!(!format!("{one:?}").contains("PRIVATE"), "a key is never logged");
}
