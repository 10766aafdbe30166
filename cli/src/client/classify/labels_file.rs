//! The file that says which labels there are, and what was learned of the members: read, checked, written.
//!
//! Knows nothing about texts or about who is asked.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};
use chorus_proto::v1::{Label, LabelCalibration};
use serde::{Deserialize, Serialize};

use crate::text_file::{self, Text};

/// The largest such file, in bytes.
const LARGEST: u64 = 16 << 20;
const HEAD: &str =
    "# Labels of `chorus classify`, and what was learned of each member on texts whose labels are known.\n\n";

/// What the file says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LabelsFile {
    /// In the order of the biases.
    pub(super) labels: Vec<FileLabel>,
    /// Those of whom something was learned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) members: Vec<FileMember>,
}

/// One label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLabel {
    pub(super) name: String,
    /// With `{text}` where the text goes.
    pub(super) template: String,
    /// How files of texts call it; its name where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) column: Option<String>,
}

/// What was learned of one member.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileMember {
    pub(super) name: String,
    pub(super) scale: f64,
    pub(super) biases: Vec<f64>,
}

impl LabelsFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, or is none of these. What the labels and numbers may be is the server's to say.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let Text { text, origin } = text_file::read(path, LARGEST)?;
        Self::parse(&text).context(origin)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: Self =
            toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.to_string().trim_end()))?;
        let mut columns = BTreeSet::new();
        for label in &file.labels {
            if !columns.insert(label.column()) {
                bail!(
                    "labels: two are called {:?} in files of texts; allowed: a name or column for each",
                    label.column()
                );
            }
        }
        Ok(file)
    }

    /// As the file is written.
    ///
    /// # Errors
    /// Never for numbers and names; toml's own.
    pub(super) fn to_toml(&self) -> anyhow::Result<String> {
        Ok(format!("{HEAD}{}", toml::to_string(self)?))
    }

    pub(super) fn labels(&self) -> Vec<Label> {
        let label = |label: &FileLabel| Label { name: label.name.clone(), template: label.template.clone() };
        self.labels.iter().map(label).collect()
    }

    pub(super) fn calibration(&self) -> Vec<LabelCalibration> {
        let member = |member: &FileMember| LabelCalibration {
            member: member.name.clone(),
            scale: Some(member.scale),
            biases: member.biases.clone(),
        };
        self.members.iter().map(member).collect()
    }

    /// The place of the label that files of texts call so.
    pub(super) fn place(&self, column: &str) -> Option<usize> {
        self.labels.iter().position(|label| label.column() == column)
    }

    /// What files of texts call the labels, for a message.
    pub(super) fn columns(&self) -> String {
        let columns: Vec<&str> = self.labels.iter().map(FileLabel::column).collect();
        columns.join(", ")
    }
}

impl FileLabel {
    fn column(&self) -> &str {
        self.column.as_deref().unwrap_or(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[[labels]]\nname = 'good'\ntemplate = '<good> {text}'\ncolumn = '1'\n\
                        [[labels]]\nname = 'bad'\ntemplate = '<bad> {text}'\n";

    #[test]
    fn what_is_written_is_read() {
        let mut file = LabelsFile::parse(FILE).unwrap();
        assert_eq!((file.place("1"), file.place("bad"), file.place("good")), (Some(0), Some(1), None));
        file.members.push(FileMember { name: "alto".into(), scale: 0.5, biases: vec![0.1, -0.1] });
        assert_eq!(LabelsFile::parse(&file.to_toml().unwrap()).unwrap(), file);
        assert_eq!(file.calibration()[0].scale, Some(0.5));
    }

    #[test]
    fn what_is_no_such_file_is_refused() {
        for (text, said) in [
            ("labels = 3", "labels"),
            ("[[labels]]\nname = 'a'", "template"),
            ("[[labels]]\nname = 'a'\ntemplate = 't'\ntemplates = 't'", "templates"),
            (
                "[[labels]]\nname = 'a'\ntemplate = 't'\n[[labels]]\nname = 'b'\ntemplate = 'u'\ncolumn = 'a'",
                "two are called \"a\"",
            ),
        ] {
            let error = format!("{:#}", LabelsFile::parse(text).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
    }
}
