//! Requests that the codec refuses before any method sees them: too long, or no message at all. They are the caller's
//! mistakes, and are said like all the others; the library calls them OUT_OF_RANGE and INTERNAL.
//!
//! Knows nothing about what a readable request says.

use chorus_proto::v1::ErrorCode;
use tonic::{Code, Status};

use crate::failure::{Failure, status};

/// A response whose status speaks of an unreadable request gets the right code and sentence; others pass through.
/// `largest` is the codec's limit in bytes.
pub(crate) fn explain<B: Default>(response: http::Response<B>, largest: usize) -> http::Response<B> {
    let refused = Status::from_header_map(response.headers());
    match refused.and_then(|refused| explained(&refused, largest)) {
        Some(status) => status.into_http(),
        None => response,
    }
}

fn explained(refused: &Status, largest: usize) -> Option<Status> {
    let said = refused.message();
    let sentence = match refused.code() {
        // Whatever it is packed to, it is what it unpacks to that is bounded.
        Code::OutOfRange | Code::ResourceExhausted
            if said.contains("decoded message length too large")
                || said.contains("exceeded while decompressing message") =>
        {
            format!(
                "it is too long to be read; allowed: {largest} bytes, of which limits.max_input_bytes and \
             limits.max_input_tokens allow even fewer to the input"
            )
        }
        Code::Internal if said.contains("failed to decode Protobuf message") => {
            format!("it is not a message of this method ({said}); allowed: the messages of its service")
        }
        Code::Internal if said == "Missing request message." => {
            "there is none; allowed: exactly one message".to_owned()
        }
        Code::Internal if said.contains("Unexpected EOF decoding stream") => {
            "it ends before the length that it announced; allowed: exactly one whole message".to_owned()
        }
        Code::Internal | Code::Unimplemented if said.contains("compress") => {
            format!("it can't be unpacked ({said}); allowed: messages as they are, or packed by gzip or zstd")
        }
        Code::Unknown if said.contains("data was not received within the designated timeout") => {
            return Some(status(
                ErrorCode::DeadlineExceeded,
                "request: its message did not come in time; allowed: pauses of limits.read_timeout_ms at most",
            ));
        }
        // Of a service that watches over its messages itself; nobody else speaks of a request.
        Code::DeadlineExceeded if said.starts_with("request: ") => {
            return Some(status(ErrorCode::DeadlineExceeded, said));
        }
        _ => return None,
    };
    Some(Failure::of_field("request", &sentence).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained_code(code: Code, message: &str) -> Option<(Code, String)> {
        let response = explain(Status::new(code, message).into_http::<String>(), 99);
        let status = Status::from_header_map(response.headers())?;
        Some((status.code(), status.message().to_owned()))
    }

    #[test]
    fn what_can_t_be_read_is_the_caller_s_mistake() {
        for (code, said, words) in [
            (Code::OutOfRange, "Error, decoded message length too large: found 9 bytes", "99 bytes"),
            (Code::Internal, "failed to decode Protobuf message: invalid varint", "invalid varint"),
            (Code::Internal, "Missing request message.", "there is none"),
            (Code::Internal, "Unexpected EOF decoding stream.", "one whole message"),
            (Code::Internal, "protocol error: received message with invalid compression flag: 5", "flag: 5"),
        ] {
            let (code, sentence) = explained_code(code, said).unwrap();
            assert_eq!(code, Code::InvalidArgument);
            assert!(sentence.starts_with("request: ") && sentence.contains(words), "{sentence}");
        }
    }

    #[test]
    fn other_answers_pass_through() {
        for (code, said) in [(Code::Internal, "a defect"), (Code::OutOfRange, "x"), (Code::Unavailable, "y")]
        {
            assert_eq!(explained_code(code, said), Some((code, said.to_owned())));
        }
        assert_eq!(explain(http::Response::new(7), 99).into_body(), 7);
    }
}
