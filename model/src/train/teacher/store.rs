//! A directory of a teacher's distributions, which comes into being piece by piece: `manifest.json`, and a file for each
//! stretch of the text. A collection that dies at any moment goes on with the pieces that are missing.
//! Knows nothing about where they come from.

use std::fs::{self, DirEntry, File, TryLockError};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::error::{PieceError, TeacherError};
use super::manifest::{MANIFEST_FILE, MOST_MANIFEST_BYTES, Manifest, TeacherHeader};
use super::piece;
use super::targets::SoftTargets;
use crate::files::{ReadError, TEMPORARY_PREFIX, read_bounded, write_atomically};
use crate::train::texts::hash;

/// A text, and what a teacher says at each of its positions.
#[derive(Clone, Debug, PartialEq)]
pub struct TaughtText {
    /// Who says it, and how.
    pub header: TeacherHeader,
    /// The text.
    pub tokens: Vec<u32>,
    /// As many distributions as there are tokens.
    pub targets: SoftTargets,
}

/// A directory into which a teacher's distributions over a text are collected.
///
/// ```
/// use chorus_model::train::{SoftTargets, TargetForm, TeacherHeader, TeacherStore, load_taught_text};
///
/// # let root = tempfile::tempdir()?;
/// let directory = root.path().join("targets");
/// let header = TeacherHeader {
///     teacher: "an ensemble of two".to_owned(),
///     vocabulary: "sha256:0123".to_owned(),
///     vocab_size: 5,
///     form: TargetForm::TopK(1),
///     temperature: 1.0,
///     piece_tokens: 2,
/// };
/// let store = TeacherStore::create_or_open(&directory, header, &[4, 0, 2])?;
/// for index in store.missing() {
///     let mut targets = SoftTargets::new(TargetForm::TopK(1), 5, 1.0)?;
///     for _ in store.positions(index) {
///         targets.push_list(&[3], &[-0.5])?;
///     }
///     store.write_piece(index, &targets)?;
/// }
/// assert_eq!(load_taught_text(&directory)?.tokens, [4, 0, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct TeacherStore {
    directory: PathBuf,
    manifest: Manifest,
    tokens: Vec<u32>,
    /// Its lock is that of the directory, and ends with the process.
    _lock: File,
}

impl TeacherStore {
    /// Begins a collection in an empty directory, which is made where it is missing, or goes on with the one that is there.
    ///
    /// # Errors
    /// A header outside its ranges, a directory of other distributions or with other files, one that another process
    /// collects into, and files that can't be read or written.
    pub fn create_or_open(
        directory: &Path,
        header: TeacherHeader,
        tokens: &[u32],
    ) -> Result<Self, TeacherError> {
        let manifest = Manifest::new(header, tokens)?;
        let path = directory.join(MANIFEST_FILE);
        if !path.exists() {
            if entries(directory).any(|entry| !is_torn(&entry)) {
                return Err(TeacherError::NotEmpty { path: directory.to_owned() });
            }
            fs::create_dir_all(directory).map_err(|source| written(directory, source))?;
            let json = manifest.to_json().map_err(|error| written(&path, error.into()))?;
            write_atomically(&path, json.as_bytes()).map_err(|source| written(&path, source))?;
        }
        let lock = lock(&path)?;
        let stored = read_manifest(&path)?;
        if let Some((field, stored, wanted)) = stored.difference(&manifest) {
            return Err(TeacherError::Differs { path: directory.to_owned(), field, stored, wanted });
        }
        // Only now that the lock says that nobody is writing them. One that can't be removed does no harm.
        for entry in entries(directory).filter(is_torn) {
            let _ = fs::remove_file(entry.path());
        }
        Ok(Self { directory: directory.to_owned(), manifest: stored, tokens: tokens.to_owned(), _lock: lock })
    }

    /// What the distributions are of.
    #[must_use]
    pub fn header(&self) -> &TeacherHeader {
        &self.manifest.header
    }

    /// How many pieces there will be.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.manifest.pieces()
    }

    /// The numbers of those that are not there yet, in order.
    pub fn missing(&self) -> impl Iterator<Item = usize> {
        (0..self.pieces()).filter(|&index| !piece_path(&self.directory, index).exists())
    }

    /// Which positions of the text a piece is about; none beyond the last piece.
    #[must_use]
    pub fn positions(&self, index: usize) -> Range<usize> {
        self.manifest.positions(index).unwrap_or_default()
    }

    /// Writes a piece: one distribution for each of its positions. A crash leaves it as a whole or not at all.
    ///
    /// # Errors
    /// No such piece, distributions of another number or kind, a text that is not of this vocabulary, and a file that can't
    /// be written.
    pub fn write_piece(&self, index: usize, targets: &SoftTargets) -> Result<(), TeacherError> {
        let tokens = self.tokens.get(self.positions(index)).unwrap_or_default();
        let bytes = piece::encode(&self.manifest, index, tokens, targets);
        let bytes = bytes.map_err(|source| TeacherError::Unfit { index, source })?;
        let path = piece_path(&self.directory, index);
        write_atomically(&path, &bytes).map_err(|source| written(&path, source))
    }

    /// Reads what has been collected, once nothing is missing.
    ///
    /// # Errors
    /// As [`load_taught_text`].
    pub fn load(&self) -> Result<TaughtText, TeacherError> {
        load(&self.directory, &self.manifest)
    }
}

/// Reads a directory that a [`TeacherStore`] has filled.
///
/// # Errors
/// No such directory, one that is not complete, files that are damaged, too large, not each other's or of another version, and
/// files that can't be read; what is said names the file.
pub fn load_taught_text(directory: &Path) -> Result<TaughtText, TeacherError> {
    load(directory, &read_manifest(&directory.join(MANIFEST_FILE))?)
}

fn load(directory: &Path, manifest: &Manifest) -> Result<TaughtText, TeacherError> {
    let pieces = manifest.pieces();
    let mut tokens = Vec::new();
    let mut targets = manifest.no_targets()?;
    for index in 0..pieces {
        let path = piece_path(directory, index);
        if !path.exists() {
            let there = (0..pieces).filter(|&index| piece_path(directory, index).exists()).count();
            return Err(TeacherError::Incomplete { path: directory.to_owned(), there, pieces });
        }
        let unusable = |source| TeacherError::Piece { path: path.clone(), source };
        let bytes = read(&path, piece::most_bytes(&manifest.header))?;
        let (piece_tokens, piece_targets) = piece::decode(manifest, index, &bytes).map_err(unusable)?;
        tokens.extend(piece_tokens);
        targets.append(&piece_targets).map_err(|error| unusable(PieceError::from(error)))?;
    }
    if hash(&tokens) != manifest.text {
        return Err(TeacherError::OtherText { path: directory.to_owned() });
    }
    Ok(TaughtText { header: manifest.header.clone(), tokens, targets })
}

fn piece_path(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("piece-{index:06}.safetensors"))
}

fn read_manifest(path: &Path) -> Result<Manifest, TeacherError> {
    Manifest::from_json(path, &read(path, MOST_MANIFEST_BYTES)?)
}

fn read(path: &Path, largest: u64) -> Result<Vec<u8>, TeacherError> {
    let path = path.to_owned();
    read_bounded(&path, largest).map_err(|error| match error {
        ReadError::Io(source) => TeacherError::File { path, action: "read", source },
        ReadError::TooLarge { found, largest } => TeacherError::TooLarge { path, found, largest },
    })
}

/// Two collections at a time would ask the teacher for everything twice.
fn lock(path: &Path) -> Result<File, TeacherError> {
    let file = File::open(path).map_err(|source| TeacherError::File {
        path: path.to_owned(),
        action: "read",
        source,
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TeacherError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(source)) => Err(written(path, source)),
    }
}

/// A collection that was killed while it wrote a file leaves a part of it under a temporary name.
fn is_torn(entry: &DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX)
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Path) -> impl Iterator<Item = DirEntry> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten()
}

fn written(path: &Path, source: io::Error) -> TeacherError {
    TeacherError::File { path: path.to_owned(), action: "written", source }
}
