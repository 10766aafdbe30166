//! What compression saves of the answers of a running ensemble, counted on the wire.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;

use chorus_proto::v1::{DistributionsRequest, ensemble_client::EnsembleClient};
use chorus_tests::{
    Ensemble, PATIENT,
    python::{Python, scripts, succeed},
    text_input,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tonic::{codec::CompressionEncoding, transport::Channel};

const TEXT: &str =
    "ROMEO:\nBut, soft! what light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n";

/// One connection to a server, and how many bytes have come from it once it is closed.
async fn counted(server: SocketAddr) -> (SocketAddr, JoinHandle<u64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counting = tokio::spawn(async move {
        let (mut near, mut far) =
            (listener.accept().await.unwrap().0, TcpStream::connect(server).await.unwrap());
        copy_bidirectional(&mut near, &mut far).await.unwrap().1
    });
    (address, counting)
}

/// The bytes of an answer, and the answer's messages.
async fn distributions(
    server: SocketAddr,
    top_n: Option<u32>,
    encoding: Option<CompressionEncoding>,
) -> (u64, Vec<chorus_proto::v1::DistributionsReply>) {
    let (address, counting) = counted(server).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let client = EnsembleClient::new(channel);
    let mut client = match encoding {
        Some(encoding) => client.accept_compressed(encoding),
        None => client,
    };
    let request = DistributionsRequest {
        input: text_input(TEXT),
        top_n,
        members: true,
        ..DistributionsRequest::default()
    };
    let mut replies = client.distributions(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(reply) = replies.message().await.unwrap() {
        all.push(reply);
    }
    drop((replies, client));
    (counting.await.unwrap(), all)
}

#[tokio::test]
async fn distributions_are_smaller_where_both_sides_want_it_and_the_same() {
    for (word, encoding) in [("gzip", CompressionEncoding::Gzip), ("zstd", CompressionEncoding::Zstd)] {
        let ensemble = Ensemble::demo(&format!("[connections]\ncompression = '{word}'\n")).await;
        for (what, top_n) in [("whole rows", None), ("lists of 16", Some(16))] {
            let (plain, said) = distributions(ensemble.address, top_n, None).await;
            let (packed, unpacked) = distributions(ensemble.address, top_n, Some(encoding)).await;
            println!(
                "{what} in {word}: {packed} of {plain} bytes, {:.0} %",
                100.0 * packed as f64 / plain as f64
            );
            assert!(packed < plain, "{what} in {word}: {packed} of {plain} bytes");
            assert!(said == unpacked, "{what} in {word}: the answers differ");
        }
    }
}

/// gRPC libraries say by themselves what they can unpack, so a client of the Open Inference Protocol gets it without asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_of_the_open_inference_protocol_are_packed_for_whoever_can_unpack_them() {
    let test = "answers_of_the_open_inference_protocol_are_packed_for_whoever_can_unpack_them";
    let Some(python) = Python::or_skip(test) else { return };
    let mut told = Vec::new();
    for word in ["none", "gzip"] {
        let ensemble = Ensemble::demo(&format!("{PATIENT}[connections]\ncompression = '{word}'\n")).await;
        let (address, counting) = counted(ensemble.address).await;
        let mut script = python.program("python");
        script.arg(scripts().join("rows.py")).arg(address.to_string());
        let said = tokio::task::spawn_blocking(move || succeed(&mut script)).await.unwrap();
        told.push((counting.await.unwrap(), said));
    }
    let [(plain, said), (packed, unpacked)] = &told[..] else { panic!("two") };
    assert!(packed < plain, "{packed} of {plain} bytes");
    assert_eq!(said, unpacked);
}
