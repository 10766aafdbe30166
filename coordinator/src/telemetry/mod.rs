//! What operators see of a running coordinator: metrics, and what is said of each request in its span.
//!
//! Knows nothing about who collects them: metrics go to whatever recorder is installed, spans to whatever subscribes.

mod answers;
mod call;
mod connections;
mod in_process;
mod layer;
mod link;
mod method;
mod process;
mod progress;
mod request_id;
mod requests;
mod spans;

pub(crate) use answers::Answers;
pub(crate) use connections::counted;
pub(crate) use in_process::{ObservedStream, observe_answer, observe_stream};
pub(crate) use layer::ObserveLayer;
pub(crate) use link::{LinkMetrics, Lost};
pub(crate) use method::Method;
pub(crate) use process::Settings;
pub(crate) use progress::Progress;
pub(crate) use requests::Requests;
pub(crate) use spans::{asked, feed_span};
