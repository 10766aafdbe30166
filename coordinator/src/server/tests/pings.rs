//! Connections on which nobody answers any more, and such on which too much is asked. Knows nothing about what is served on them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::*;

/// Passes everything on until it is told to; then it holds the connections and is silent, as a machine that lost its power.
async fn relay(to: SocketAddr, silence: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut server = TcpStream::connect(to).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            () = silence.cancelled() => std::future::pending().await,
        }
    });
    address
}

async fn sessions(client: &mut EnsembleClient<Channel>) -> u32 {
    // Others are to have their turn.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let status = client.status(StatusRequest {}).await.unwrap().into_inner();
    status.members.iter().map(|member| member.sessions).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_work_of_a_client_that_answers_no_ping_ends() {
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Silent);
    let coordinator = coordinator(
        &[&worker],
        "[connections]\nkeepalive_ms = 50\nkeepalive_timeout_ms = 10000\n[limits]\nstep_timeout_ms = 600000\n\
         [resilience]\ndegrade_after_ms = 600000\n",
    )
    .await;
    until(&mut coordinator.health("").await, ServingStatus::Serving).await;
    let mut here = EnsembleClient::new(coordinator.channel().await);
    let silence = CancellationToken::new();
    let address = relay(coordinator.address, silence.clone()).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let asked = tokio::spawn(async move { EnsembleClient::new(channel).complete(request(3)).await });
    let reached = async { while sessions(&mut here).await == 0 {} };
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("the request never began");
    silence.cancel();
    let ended = async { while sessions(&mut here).await > 0 {} };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("its work goes on for nobody");
    asked.abort();
    coordinator.stop().await;
}

/// The type of a frame that asks whether the other side is there.
const PING: u8 = 6;
const ACK: u8 = 1;

/// A frame of HTTP/2 (RFC 9113, 4.1) on no stream.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, 0, 0, 0, 0, 0], payload].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_pings_often_is_answered_and_kept() {
    const PINGS: u64 = 2000;
    let worker = ScriptedWorker::start(&vocabulary(), 1, Manner::Faithful);
    let coordinator = coordinator(&[&worker], "").await;
    let (mut reading, mut writing) = TcpStream::connect(coordinator.address).await.unwrap().into_split();
    writing.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    writing.write_all(&frame(4, &[])).await.unwrap();
    let asking = tokio::spawn(async move {
        for ping in 0..PINGS {
            writing.write_all(&frame(PING, &ping.to_be_bytes())).await.unwrap();
        }
        writing
    });
    let answers = async {
        let mut answered = 0;
        while answered < PINGS {
            let mut head = [0; 9];
            reading.read_exact(&mut head).await.expect("the connection is kept");
            let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            reading.read_exact(&mut payload).await.unwrap();
            if (head[3], head[4]) == (PING, ACK) {
                assert_eq!(payload, answered.to_be_bytes());
                answered += 1;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), answers).await.expect("every ping is answered");
    drop(asking.await.unwrap());
    coordinator.stop().await;
}
