//! What operators see of a running coordinator: metrics, and what is said of each request in its span.
//!
//! Knows nothing about who collects them: metrics go to whatever recorder is installed, spans to whatever subscribes.

mod answers;
mod call;
mod connections;
mod link;
mod method;
mod process;
mod progress;
mod request_id;
mod requests;
mod spans;

pub(crate) use answers::Answers;
pub(crate) use call::ObserveLayer;
pub(crate) use connections::counted;
pub(crate) use link::{LinkMetrics, Lost};
pub(crate) use method::Method;
pub(crate) use process::Settings;
pub(crate) use progress::Progress;
pub(crate) use spans::{asked, feed_span};
