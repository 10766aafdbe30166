//! Pictures as files. Knows nothing about what is drawn.

use std::path::Path;

use anyhow::Context as _;

/// Written beside and renamed, so that a browser that looks at it never sees half a picture.
pub(crate) fn write_picture(path: &Path, picture: &str) -> anyhow::Result<()> {
    let partial = path.with_extension("svg.partial");
    std::fs::write(&partial, picture)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("can't write {}", path.display()))
}
