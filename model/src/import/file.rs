//! Reading the files that an import is given: regular ones, within a bound. Knows nothing about what is in them.

use std::path::Path;

use super::error::ImportError;
use crate::files::{ReadError, read_bounded};

/// Reads a whole regular file of at most so many bytes.
pub(super) fn read(path: &Path, largest: u64) -> Result<Vec<u8>, ImportError> {
    read_bounded(path, largest).map_err(|error| {
        let source = match error {
            ReadError::Io(source) => source,
            ReadError::TooLarge { found, largest } => {
                std::io::Error::other(format!("it has {found} bytes, allowed are at most {largest}"))
            }
        };
        ImportError::Read { path: path.to_owned(), source }
    })
}
