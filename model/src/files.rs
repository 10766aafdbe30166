//! Reading files of bounded size, and replacing files in one piece.
//!
//! Knows nothing about what is in them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

/// How the name of a file begins that is not written to its end.
pub(crate) const TEMPORARY_PREFIX: &str = ".chorus-";

/// Why a file was not read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    TooLarge { found: u64, largest: u64 },
}

/// Reads a whole regular file; nothing is allocated for one that is larger than `largest` bytes.
pub(crate) fn read_bounded(path: &Path, largest: u64) -> Result<Vec<u8>, ReadError> {
    // Before it is opened: opening a pipe waits for whoever writes into it.
    if !path.metadata().map_err(ReadError::Io)?.is_file() {
        return Err(ReadError::Io(io::Error::other("it is not a regular file")));
    }
    let file = File::open(path).map_err(ReadError::Io)?;
    let metadata = file.metadata().map_err(ReadError::Io)?;
    let found = metadata.len();
    if found > largest {
        return Err(ReadError::TooLarge { found, largest });
    }
    let mut bytes = Vec::new();
    let capacity = usize::try_from(found).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(capacity).map_err(|error| ReadError::Io(error.into()))?;
    // The file may grow while it is read.
    file.take(found).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    Ok(bytes)
}

/// Writes a file so that readers, and a crash at any moment, see either the old content or the new.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // As any new file: readable for all that the umask allows.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut temporary = builder.prefix(TEMPORARY_PREFIX).tempfile_in(parent)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    Ok(())
}
