//! Writing a file so that a reader, or a run after a crash, finds the old content or the new one, never a part.
//! Knows nothing about what is written.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::error::TrainError;

/// Writes `bytes` beside `path`, brings them to the disk, and moves them into place.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    let write = || {
        // One fixed name: what a killed run leaves behind is overwritten by the next, not added to.
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = Path::new(&partial);
        let mut file = File::create(partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(partial, path)?;
        match path.parent() {
            // The rename itself is on the disk when the directory is.
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| TrainError::File {
        path: path.to_owned(),
        action: "written",
        source,
    })
}
