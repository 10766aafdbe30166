//! What browsers make of it: files, headers, connections that go away or never begin, and the end.

use std::time::Duration;

use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Served;

#[tokio::test]
async fn the_page_is_whole_and_lets_nothing_else_in() {
    let page = Served::start().await;
    let html = page.get("/").await;
    assert_eq!((html.status, html.header("content-type")), (200, "text/html; charset=utf-8"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("access-control-allow-origin", ""),
    ] {
        assert_eq!(html.header(name), value, "{name}");
    }
    let policy = html.header("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
        "{policy}"
    );
    // Every file that a file names is there, and of its type.
    let mut paths = vec!["/".to_owned()];
    let mut seen = 0;
    while let Some(path) = paths.get(seen).cloned() {
        seen += 1;
        let file = page.get(&path).await;
        assert_eq!(file.status, 200, "{path}");
        for part in file.body.split(['"', '\'']) {
            let named =
                part.strip_prefix("./").map(|name| format!("/{name}")).unwrap_or_else(|| part.to_owned());
            let is_file =
                named.starts_with('/') && [".js", ".css", ".svg"].iter().any(|end| named.ends_with(end));
            if is_file && !paths.contains(&named) {
                paths.push(named);
            }
        }
        let kind = file.header("content-type");
        let expected = [(".js", "text/javascript"), (".css", "text/css"), (".svg", "image/svg+xml")];
        assert!(
            expected.iter().all(|(end, of)| !path.ends_with(end) || kind.starts_with(of)),
            "{path}: {kind}"
        );
        let (urls, own) =
            (file.body.matches("://").count(), file.body.matches("http://www.w3.org/2000/svg").count());
        assert_eq!(urls, own, "{path} names another place than the namespace of SVG");
    }
    assert_eq!(paths.len(), 11, "{paths:?}");
}

#[tokio::test]
async fn a_browser_that_goes_away_ends_its_generation() {
    let page = Served::start().await;
    let mut going_on = page.ensemble.endless.subscribe();
    let response = page.send("POST", "/api/generate", &[], r#"{"prompt": {"text": "endless"}}"#).await;
    let mut body = response.into_body();
    for _ in 0..3 {
        body.frame().await.unwrap().unwrap();
    }
    assert_eq!(*going_on.borrow_and_update(), 1);
    drop(body);
    going_on.wait_for(|count| *count == 0).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_says_what_it_wants_is_closed() {
    let page = Served::start().await;
    for said in ["", "POST /api/generate HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut stream = TcpStream::connect(page.address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "it waits for the rest of {said:?}");
    }
    let mut stream = TcpStream::connect(page.address).await.unwrap();
    let half = "POST /api/generate HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
    stream.write_all(half.as_bytes()).await.unwrap();
    let mut said = vec![0; 12];
    tokio::time::timeout(Duration::from_secs(60), stream.read_exact(&mut said)).await.unwrap().unwrap();
    assert_eq!(said, b"HTTP/1.1 408");
}

#[tokio::test]
async fn a_shutdown_lets_what_was_begun_finish() {
    let page = Served::start().await;
    let response = page.send("POST", "/api/generate", &[], r#"{"prompt": {"text": "endless"}}"#).await;
    let mut body = response.into_body();
    page.shutdown.cancel();
    body.frame().await.expect("it goes on").unwrap();
    // What is no request ends.
    let refused = TcpStream::connect(page.address).await;
    if let Ok(mut stream) = refused {
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0, "nobody takes it");
    }
    assert!(!page.serving.is_finished());
    drop(body);
    page.serving.await.unwrap();
}
