//! The page's own files, which are part of this program. Knows nothing about what they show.

use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A path, what is there, and of which type.
struct File {
    path: &'static str,
    text: &'static str,
    kind: &'static str,
}

macro_rules! file {
    ($path:literal, $name:literal, $kind:expr) => {
        File { path: $path, text: include_str!(concat!("../assets/", $name)), kind: $kind }
    };
}

const FILES: &[File] = &[
    file!("/", "index.html", HTML),
    file!("/page.css", "page.css", CSS),
    file!("/icon.svg", "icon.svg", SVG),
    file!("/main.js", "main.js", SCRIPT),
    file!("/api.js", "api.js", SCRIPT),
    file!("/dom.js", "dom.js", SCRIPT),
    file!("/members.js", "members.js", SCRIPT),
    file!("/charts.js", "charts.js", SCRIPT),
    file!("/request.js", "request.js", SCRIPT),
    file!("/playground.js", "playground.js", SCRIPT),
    file!("/token.js", "token.js", SCRIPT),
];

/// Every file's path, and what answers there.
pub(crate) fn routes<S: Clone + Send + Sync + 'static>()
-> impl Iterator<Item = (&'static str, MethodRouter<S>)> {
    FILES.iter().map(|file| (file.path, get(move || async move { file.response() })))
}

impl File {
    fn response(&self) -> Response {
        // Another version of the program has other files at the same paths.
        ([(CONTENT_TYPE, self.kind), (CACHE_CONTROL, "no-cache")], self.text).into_response()
    }
}
