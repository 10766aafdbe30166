//! A request's stop strings. Knows nothing about how they are found.

use super::RequestError;

/// Every one of them is watched for at every byte of the text.
const MOST_STOP_STRINGS: usize = 16;
/// Text that may begin a stop string is held back, so one must not be long.
const MOST_STOP_BYTES: usize = 256;

/// A bounded number of short strings, none empty.
pub(super) fn check(stop: Vec<String>) -> Result<Vec<String>, RequestError> {
    let error = |message: String| Err(RequestError::new("stop", message));
    if stop.len() > MOST_STOP_STRINGS {
        let count = stop.len();
        return error(format!("there are {count} stop strings; allowed: 0 to {MOST_STOP_STRINGS}"));
    }
    let wrong =
        stop.iter().map(String::len).enumerate().find(|(_, bytes)| !(1..=MOST_STOP_BYTES).contains(bytes));
    if let Some((position, bytes)) = wrong {
        return error(format!(
            "the stop string at position {position} has {bytes} bytes; allowed: 1 to {MOST_STOP_BYTES}"
        ));
    }
    Ok(stop)
}
