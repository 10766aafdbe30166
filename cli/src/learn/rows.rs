//! [`Rows`]: each member's whole distributions at every position, which stay on disk and are read part by part.
//!
//! Knows nothing about what is made of them.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail};
use chorus_proto::v1::Rule;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::cache::Cache;
use super::collect::{Collected, Collecting, Unanswered};
use super::ensemble::RunningEnsemble;
use super::parts::Part;
use super::stream::{self, Asked};
use super::tensors::Tensors;

/// What is kept of it in a cache's manifest.
pub(crate) const ASKED: &str = "rows";
/// The largest header of a file: it names two tensors.
const LARGEST_HEADER: u64 = 1 << 16;

/// Whole distributions on disk: `[tokens][members][vocabulary]`.
pub(crate) struct Rows {
    members: usize,
    vocabulary_size: usize,
    parts: Vec<OpenPart>,
}

/// A part of them, of which a few rows are read at a time.
struct OpenPart {
    /// The number of its first token among those of all parts.
    first: usize,
    tokens: Vec<u32>,
    path: PathBuf,
    file: Mutex<File>,
    /// Where the first row begins.
    offset: u64,
}

/// Asks for those of every part.
///
/// # Errors
/// The ensemble can't be reached or refuses, changed, or says what can't be used.
pub(crate) async fn collect(collecting: &Collecting<'_>, parts: Vec<Part>) -> anyhow::Result<Collected> {
    let names = collecting.ensemble.identity.names();
    collecting.all(parts, |tokens, part| ask(collecting.ensemble.clone(), tokens, part, names.clone())).await
}

async fn ask(
    ensemble: RunningEnsemble,
    tokens: Vec<u32>,
    part: Part,
    names: Vec<String>,
) -> Result<Tensors, Unanswered> {
    let asked = Asked { top_n: None, temperature: 1.0, members: true, rule: Some(Rule::WeightedAverage) };
    let vocabulary_size = ensemble.vocabulary.len() as usize;
    let (mut came, mut log_probs) = (Vec::new(), Vec::new());
    stream::ask(ensemble, asked, &tokens, &part, &names, |position| {
        came.push(position.token);
        for name in &names {
            let found = position.members.iter().find(|(member, _)| member == name);
            log_probs.extend_from_slice(&found.context("a member is missing")?.1);
        }
        Ok(())
    })
    .await?;
    Ok(Tensors::default().with("tokens", &[came.len()], &came).with(
        "log_probs",
        &[came.len(), names.len(), vocabulary_size],
        &log_probs,
    ))
}

impl Rows {
    /// Opens what is kept of these parts.
    ///
    /// # Errors
    /// A file can't be read, or is damaged.
    pub(crate) fn open(cache: &Cache, parts: &[Part], vocabulary_size: usize) -> anyhow::Result<Self> {
        let members = cache.manifest().ensemble.members.len();
        let (mut open, mut first) = (Vec::with_capacity(parts.len()), 0);
        for part in parts {
            let path = cache.path(part.index);
            let expected = [part.tokens.len(), members, vocabulary_size];
            let read =
                || File::open(&path).context("it can't be opened").and_then(|file| header(file, expected));
            let (file, tokens, offset) =
                read().with_context(|| format!("{} is damaged; remove it", path.display()))?;
            open.push(OpenPart { first, tokens, path, file: Mutex::new(file), offset });
            first += part.tokens.len();
        }
        Ok(Self { members, vocabulary_size, parts: open })
    }

    /// How many members there are.
    pub(crate) fn members(&self) -> usize {
        self.members
    }

    /// How many tokens the vocabulary has.
    pub(crate) fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// Tokens of all parts together.
    pub(crate) fn tokens(&self) -> usize {
        self.parts.last().map_or(0, |part| part.first + part.tokens.len())
    }

    /// The token that came, and the rows of all members about it.
    ///
    /// # Errors
    /// There is none, or its file can't be read.
    pub(crate) fn read(&self, token: usize, rows: &mut [f32]) -> anyhow::Result<u32> {
        let place = self.parts.partition_point(|part| part.first <= token);
        let part =
            place.checked_sub(1).and_then(|place| self.parts.get(place)).context("there is no such token")?;
        let number = token - part.first;
        let came = *part.tokens.get(number).context("there is no such token")?;
        let width = self.members * self.vocabulary_size * size_of::<f32>();
        let mut bytes = vec![0; width];
        let mut read = || -> io::Result<()> {
            let mut file = part.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(part.offset + (number * width) as u64))?;
            file.read_exact(&mut bytes)
        };
        read().with_context(|| format!("can't read {}", part.path.display()))?;
        for (value, bytes) in rows.iter_mut().zip(bytes.chunks_exact(size_of::<f32>())) {
            *value = f32::from_le_bytes(bytes.try_into()?);
        }
        Ok(came)
    }
}

/// The tokens of a file, and where its rows begin; the rows themselves may be large and stay where they are.
pub(super) fn header(mut file: File, expected: [usize; 3]) -> anyhow::Result<(File, Vec<u32>, u64)> {
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    anyhow::ensure!(length <= LARGEST_HEADER, "its header has {length} bytes");
    let mut bytes = Vec::new();
    (&mut file).take(length).read_to_end(&mut bytes)?;
    let metadata: Metadata = serde_json::from_slice(&bytes)?;
    let tensor = |name: &str| metadata.info(name).with_context(|| format!("it has no tensor {name}"));
    let (rows, tokens) = (tensor("log_probs")?, tensor("tokens")?);
    let [count, _, vocabulary_size] = expected;
    if rows.dtype != Dtype::F32
        || rows.shape != expected
        || tokens.dtype != Dtype::U32
        || tokens.shape != [count]
    {
        bail!(
            "its log_probs have the shape {:?} for tokens of the shape {:?}; expected is {expected:?}",
            rows.shape,
            tokens.shape
        );
    }
    let begin = length + 8;
    let size = file.metadata()?.len();
    let bytes_of = |tensor: &TensorInfo| tensor.data_offsets.1.checked_sub(tensor.data_offsets.0);
    let numbers = expected.iter().product::<usize>();
    let is_whole = size == begin + metadata.data_len() as u64
        && bytes_of(rows) == Some(numbers * size_of::<f32>())
        && bytes_of(tokens) == Some(count * size_of::<u32>());
    anyhow::ensure!(is_whole, "it has {size} bytes, more or fewer than it says");
    file.seek(SeekFrom::Start(begin + tokens.data_offsets.0 as u64))?;
    let mut bytes = vec![0; count * size_of::<u32>()];
    file.read_exact(&mut bytes)?;
    let tokens: Vec<u32> =
        bytes.chunks_exact(4).filter_map(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?))).collect();
    if let Some(token) = tokens.iter().find(|token| **token as usize >= vocabulary_size) {
        bail!("its token {token} is not in the vocabulary of {vocabulary_size}");
    }
    Ok((file, tokens, begin + rows.data_offsets.0 as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_one_by_one_and_a_damaged_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let write = |token: u32| {
            let values: Vec<f32> = (0..8).map(|value| -(value as f32)).collect();
            let tensors =
                Tensors::default().with("tokens", &[2], &[token, 0]).with("log_probs", &[2, 2, 2], &values);
            std::fs::write(&path, tensors.encode().unwrap()).unwrap();
        };
        write(1);
        let open = |expected| header(File::open(&path).unwrap(), expected);
        let (file, tokens, offset) = open([2, 2, 2]).unwrap();
        let part = OpenPart { first: 0, tokens, path: path.clone(), file: Mutex::new(file), offset };
        let rows = Rows { members: 2, vocabulary_size: 2, parts: vec![part] };
        let mut read = [0.0; 4];
        assert_eq!(rows.read(1, &mut read).unwrap(), 0);
        assert_eq!(read, [-4.0, -5.0, -6.0, -7.0]);
        assert_eq!(rows.read(0, &mut read).unwrap(), 1);
        assert!(rows.read(2, &mut read).is_err());
        assert!(open([2, 1, 4]).unwrap_err().to_string().contains("expected is [2, 1, 4]"));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        assert!(open([2, 2, 2]).unwrap_err().to_string().contains("more or fewer than it says"));
        write(2);
        assert!(open([2, 2, 2]).unwrap_err().to_string().contains("token 2 is not in"));
        std::fs::write(&path, [255; 16]).unwrap();
        assert!(open([2, 2, 2]).is_err());
    }
}
