//! [`Cache`]: what an ensemble said of a text, part by part in a folder, so that a run that was stopped goes on and another one
//! need not ask again.
//!
//! Knows nothing about what was asked.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::file::replace;
use super::identity::Identity;
use super::tensors::Tensors;

const MANIFEST: &str = "manifest.json";
const FORMAT: u32 = 1;
/// The largest part that is read back.
const LARGEST_PART: u64 = 4 << 30;

/// Of what the parts are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    /// What was asked, for example `scores`.
    pub(crate) asked: String,
    /// SHA-256 of the text's tokens.
    pub(crate) text: String,
    /// How many tokens the text has.
    pub(crate) tokens: usize,
    /// Tokens of a part, and of what is read before it.
    pub(crate) part_tokens: usize,
    pub(crate) context_tokens: usize,
    pub(crate) ensemble: Identity,
}

/// Parts on disk.
pub(crate) struct Cache {
    folder: PathBuf,
    manifest: Manifest,
}

impl Manifest {
    pub(crate) fn new(asked: &str, tokens: &[u32], sizes: (usize, usize), ensemble: &Identity) -> Self {
        Self {
            format: FORMAT,
            asked: asked.to_owned(),
            text: hash(tokens),
            tokens: tokens.len(),
            part_tokens: sizes.0,
            context_tokens: sizes.1,
            ensemble: ensemble.clone(),
        }
    }

    /// The name of the folder: another question, text or ensemble has another one.
    fn folder(&self) -> anyhow::Result<String> {
        let digest = hex(&serde_json::to_vec(self)?);
        Ok(format!("{}-{}", self.asked.replace(' ', "-"), digest.get(..16).unwrap_or_default()))
    }
}

impl Cache {
    /// The parts below `folder` of what this manifest says; an empty folder is made where there is none.
    ///
    /// # Errors
    /// It can't be made or read, or holds something else, which is left as it is.
    pub(crate) fn open(folder: &Path, manifest: Manifest) -> anyhow::Result<Self> {
        let folder = folder.join(manifest.folder()?);
        fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        let path = folder.join(MANIFEST);
        match fs::read(&path) {
            Ok(bytes) => {
                if serde_json::from_slice(&bytes).ok().as_ref() != Some(&manifest) {
                    bail!(
                        "{} is damaged: the cache can't be used; allowed: to remove it, or another --cache",
                        path.display()
                    );
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                write(&path, &serde_json::to_vec_pretty(&manifest)?)?;
            }
            Err(error) => return Err(error).with_context(|| format!("can't read {}", path.display())),
        }
        Ok(Self { folder, manifest })
    }

    /// Of what the parts are.
    pub(crate) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Whether a part is there.
    pub(crate) fn has(&self, index: usize) -> bool {
        self.path(index).is_file()
    }

    /// Keeps a part, whole or not at all.
    ///
    /// # Errors
    /// It can't be written.
    pub(crate) fn keep(&self, index: usize, part: &Tensors) -> anyhow::Result<()> {
        write(&self.path(index), &part.encode()?)
    }

    /// The bytes of a part, and where they are.
    ///
    /// # Errors
    /// It can't be read, or is larger than any part.
    pub(crate) fn read(&self, index: usize) -> anyhow::Result<(PathBuf, Vec<u8>)> {
        let path = self.path(index);
        let size = fs::metadata(&path).with_context(|| format!("can't read {}", path.display()))?.len();
        if size > LARGEST_PART {
            bail!("{} has {size} bytes, more than any part", path.display());
        }
        let bytes = fs::read(&path).with_context(|| format!("can't read {}", path.display()))?;
        Ok((path, bytes))
    }

    /// Where a part is.
    pub(super) fn path(&self, index: usize) -> PathBuf {
        self.folder.join(format!("part-{index:06}.safetensors"))
    }
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    replace(path, bytes).with_context(|| format!("can't write {}", path.display()))
}

/// SHA-256 of tokens.
fn hash(tokens: &[u32]) -> String {
    hex(&tokens.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>())
}

/// SHA-256 of bytes, in hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(asked: &str, tokens: &[u32], sizes: (usize, usize), model: &str) -> Manifest {
        let ensemble =
            serde_json::json!({ "vocabulary": "v", "members": [{ "name": "alto", "model": model }] });
        Manifest::new(asked, tokens, sizes, &serde_json::from_value(ensemble).unwrap())
    }

    #[test]
    fn a_cache_is_used_again_by_the_same_and_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let open = |manifest| Cache::open(folder.path(), manifest);
        let cache = open(manifest("scores", &[1, 2], (4, 2), "a")).unwrap();
        assert!(!cache.has(3));
        cache.keep(3, &Tensors::default().with("ids", &[1], &[7_u32])).unwrap();
        let again = open(manifest("scores", &[1, 2], (4, 2), "a")).unwrap();
        assert!(again.has(3) && again.read(3).is_ok());
        for other in [
            manifest("scores", &[1, 3], (4, 2), "a"),
            manifest("scores", &[1, 2], (4, 2), "b"),
            manifest("scores", &[1, 2], (5, 2), "a"),
            manifest("lists of 100", &[1, 2], (4, 2), "a"),
        ] {
            assert!(!open(other).unwrap().has(3), "another text, ensemble, cut or question is kept apart");
        }
        assert!(again.has(3), "it is left as it is");
    }

    #[test]
    fn a_folder_that_can_t_be_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Cache::open(&file, manifest("scores", &[1], (4, 2), "a")).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("can't make "), "{error}");
        let ours = manifest("scores", &[1], (4, 2), "a");
        let cache = Cache::open(folder.path(), ours.clone()).unwrap();
        fs::write(cache.folder.join("manifest.json"), "{}").unwrap();
        let error = Cache::open(folder.path(), ours).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("manifest.json is damaged: the cache can't be used"), "{error}");
    }
}
