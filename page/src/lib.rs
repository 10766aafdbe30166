//! A page to look at: members, their health and weights, throughput and latency, and a playground, in a browser.
//!
//! [`Page`] serves one page with its script and style, all of it in this binary, and what the script asks, over anything that
//! implements the generated trait of `chorus.v1.Ensemble`, in the same process. Knows the wire and HTTP, and nothing about how
//! an ensemble is served: no members' links, no models, no files.
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the page; it fetches `/page.css` and `/*.js` beside it, and nothing from anywhere else |
//! | `GET /api/status` | a `StatusReply` |
//! | `POST /api/generate`, a `GenerateRequest` | a line for each `GenerateReply` as it comes (`application/x-ndjson`) |
//! | `POST /api/score`, a `ScoreRequest` | a `ScoreReply` |
//! | `POST /api/predict`, a `PredictRequest` | a `PredictReply` |
//!
//! Messages are those of `chorus.v1` as JSON, in protobuf's own mapping with the names of the `.proto` files: enums by name, 64-bit
//! integers as strings, numbers that are not finite as `"-Infinity"` and so on. What is absent or at its default is left out
//! of answers.
//!
//! ```json
//! {"prompt": {"text": "ROMEO:"}, "max_tokens": 40, "candidates": 5, "sampling": {"temperature": 0.8, "seed": "7"},
//!  "fusion": {"rule": "RULE_LOG_LINEAR", "weights": {"alto": 2, "bass": 1, "tenor": 1}}}
//! ```
//!
//! A failure is `{"code": "INVALID_ARGUMENT", "message": "...", "field": "sampling.temperature"}` with the HTTP status that goes
//! with the code; `field` is left out where no field is at fault. Once lines have been sent, the last one is `{"error": {...}}`
//! instead. `authorization` goes to the ensemble as metadata of that name, and the connection's peer as an extension, as
//! tonic has it.

mod api;
mod failure;
mod files;
mod json;
mod manners;
mod server;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use json::NoDescriptor;
pub use server::Page;
