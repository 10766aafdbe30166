//! A model directory that appears as a whole: it is written beside its place, under another name, and then renamed. Knows
//! nothing about what is in it.

use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::files::TEMPORARY_PREFIX;
use crate::load_error::SaveError;

/// A directory that is not in its place yet. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct NewDirectory {
    place: PathBuf,
    unfinished: TempDir,
}

impl NewDirectory {
    /// Begins a directory whose place is free: nothing is there, or an empty directory.
    pub(crate) fn begin(place: &Path) -> Result<Self, SaveError> {
        if !is_free(place).map_err(write_error(place))? {
            return Err(SaveError::Taken { path: place.to_owned() });
        }
        let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(parent).map_err(write_error(parent))?;
        let mut builder = tempfile::Builder::new();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // As any new directory: open to all whom the umask allows.
            builder.permissions(std::fs::Permissions::from_mode(0o777));
        }
        let unfinished = builder.prefix(TEMPORARY_PREFIX).tempdir_in(parent).map_err(write_error(parent))?;
        Ok(Self { place: place.to_owned(), unfinished })
    }

    /// Where its files are written.
    pub(crate) fn path(&self) -> &Path {
        self.unfinished.path()
    }

    /// Puts it in its place, in one step.
    pub(crate) fn finish(self) -> Result<(), SaveError> {
        let place = self.place;
        if place.is_dir() {
            // Not every system renames over a directory, not even over an empty one; one that is not empty any more stays.
            std::fs::remove_dir(&place).map_err(write_error(&place))?;
        }
        std::fs::rename(self.unfinished.path(), &place).map_err(write_error(&place))?;
        // It is not there any more to be removed.
        let _renamed = self.unfinished.keep();
        Ok(())
    }
}

fn is_free(place: &Path) -> io::Result<bool> {
    match std::fs::read_dir(place) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn write_error(path: &Path) -> impl Fn(io::Error) -> SaveError {
    move |source| SaveError::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn it_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("deep/model");
        let begun = NewDirectory::begin(&place).unwrap();
        fs::write(begun.path().join("a"), "1").unwrap();
        assert!(!place.exists());
        drop(begun);
        assert!(names(&folder.path().join("deep")).is_empty(), "what was begun is gone");
        for empty in [false, true] {
            if empty {
                fs::remove_dir_all(&place).unwrap();
                fs::create_dir(&place).unwrap();
            }
            let begun = NewDirectory::begin(&place).unwrap();
            fs::write(begun.path().join("a"), "1").unwrap();
            begun.finish().unwrap();
            assert_eq!(
                (names(&folder.path().join("deep")), names(&place)),
                (vec!["model".to_owned()], vec!["a".to_owned()])
            );
        }
    }

    #[test]
    fn a_place_that_is_taken_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("model");
        fs::create_dir(&place).unwrap();
        let begun = NewDirectory::begin(&place).unwrap();
        fs::write(place.join("b"), "2").unwrap();
        let error = NewDirectory::begin(&place).unwrap_err();
        assert!(error.to_string().ends_with("model is there already, and not empty"), "{error}");
        assert!(begun.finish().is_err(), "somebody was faster");
        assert_eq!(names(&place), ["b"]);
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(NewDirectory::begin(&file), Err(SaveError::Write { .. })));
        assert_eq!(names(folder.path()), ["file", "model"]);
    }
}
