//! Which model directories `up` starts workers for. Knows nothing about what is in a model's files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use chorus_coordinator::config::MemberConfig;

/// Where the demo members are, from the workspace's root.
const DEMO: &str = "deploy/demo";

/// Any of these makes a directory a model directory; a worker says what is missing.
const MODEL_FILES: [&str; 4] = ["config.json", "model.safetensors", "model.gguf", "tokenizer.json"];

/// A member to start: its name is the directory's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ModelDirectory {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// The given folder of model directories, or the demo's: below the current directory, else below the workspace that
/// this binary was built from.
///
/// # Errors
/// The folder is not there or holds no model directory.
pub(crate) fn find(given: Option<&Path>) -> anyhow::Result<Vec<ModelDirectory>> {
    match given {
        Some(folder) => below(folder),
        None => below(&demo()),
    }
}

/// The fallback's model directory, where one is given.
///
/// # Errors
/// It is none, or its name is that of a member.
pub(crate) fn fallback(
    given: Option<&Path>,
    members: &[ModelDirectory],
) -> anyhow::Result<Option<ModelDirectory>> {
    let Some(path) = given else {
        return Ok(None);
    };
    if !is_model_directory(path) {
        bail!("no model at {}: it holds none of {}", path.display(), MODEL_FILES.join(", "));
    }
    let fallback = named(path)?;
    if members.iter().any(|member| member.name == fallback.name) {
        bail!(
            "the fallback {} has the name of a member; allowed: a directory with another name",
            path.display()
        );
    }
    Ok(Some(fallback))
}

fn demo() -> PathBuf {
    let here = PathBuf::from(DEMO);
    if here.is_dir() {
        return here;
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(DEMO);
    if built.is_dir() { built } else { here }
}

/// The model directories of a folder, by name; or the folder itself, where it is one.
fn below(folder: &Path) -> anyhow::Result<Vec<ModelDirectory>> {
    if is_model_directory(folder) {
        return Ok(vec![named(folder)?]);
    }
    let entries = fs::read_dir(folder).with_context(|| format!("no models at {}", folder.display()))?;
    let mut models = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("can't read {}", folder.display()))?.path();
        // One that is being written has a hidden name.
        let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden && is_model_directory(&path) {
            models.push(named(&path)?);
        }
    }
    if models.is_empty() {
        bail!("no models at {}: none of its directories holds {}", folder.display(), MODEL_FILES.join(", "));
    }
    // Member order is part of the answer, so it must not depend on the file system.
    models.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(models)
}

fn is_model_directory(path: &Path) -> bool {
    MODEL_FILES.iter().any(|file| path.join(file).exists())
}

fn named(path: &Path) -> anyhow::Result<ModelDirectory> {
    let absolute = path.canonicalize().with_context(|| format!("can't read {}", path.display()))?;
    let name = absolute
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| anyhow!("the directory {} has no name to call a member by", path.display()))?;
    // The coordinator decides what a name may be; asked now, since nothing runs yet.
    format!("{name}=http://127.0.0.1:1")
        .parse::<MemberConfig>()
        .with_context(|| format!("the directory {} can't be a member", path.display()))?;
    Ok(ModelDirectory { name: name.to_owned(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_directories_are_found_by_their_files_in_the_order_of_their_names() {
        let folder = tempfile::tempdir().unwrap();
        for (directory, file) in [
            ("tenor", "config.json"),
            ("alto", "model.safetensors"),
            ("notes", "x.md"),
            (".chorus-x", "model.gguf"),
        ] {
            fs::create_dir(folder.path().join(directory)).unwrap();
            fs::write(folder.path().join(directory).join(file), "").unwrap();
        }
        fs::write(folder.path().join("README.md"), "").unwrap();
        let models = find(Some(folder.path())).unwrap();
        let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
        assert_eq!(names, ["alto", "tenor"]);
    }

    #[test]
    fn a_model_directory_itself_is_one_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("alto");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("config.json"), "").unwrap();
        let name = "alto".to_owned();
        assert_eq!(find(Some(&path)).unwrap(), [ModelDirectory { name, path }]);
    }

    #[test]
    fn a_fallback_is_a_model_of_another_name() {
        let folder = tempfile::tempdir().unwrap();
        for directory in ["members/alto", "members/bass", "student", "other/alto"] {
            fs::create_dir_all(folder.path().join(directory)).unwrap();
            fs::write(folder.path().join(directory).join("config.json"), "").unwrap();
        }
        let members = find(Some(&folder.path().join("members"))).unwrap();
        let of = |directory: &str| fallback(Some(&folder.path().join(directory)), &members);
        assert_eq!(of("student").unwrap().unwrap().name, "student");
        assert!(fallback(None, &members).unwrap().is_none());
        assert!(of("other/alto").unwrap_err().to_string().contains("has the name of a member"));
        assert!(of("nowhere").unwrap_err().to_string().starts_with("no model at "));
    }

    #[test]
    fn a_folder_without_models_says_what_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let error = find(Some(folder.path())).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "no models at {}: none of its directories holds config.json, model.safetensors, model.gguf, tokenizer.json",
                folder.path().display()
            )
        );
    }

    #[test]
    fn a_directory_whose_name_no_member_can_have_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("Alto 1")).unwrap();
        fs::write(folder.path().join("Alto 1/config.json"), "").unwrap();
        let error = find(Some(folder.path())).unwrap_err();
        let line = crate::failure::one_line(&error);
        assert!(line.contains("Alto 1 can't be a member: the name is \"Alto 1\"; allowed:"), "{line}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = find(Some(Path::new("surely/not/here"))).unwrap_err();
        assert_eq!(error.to_string(), "no models at surely/not/here");
    }
}
