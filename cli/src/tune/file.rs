//! The file of weights that `chorus tune` writes. Knows nothing about how they are learned.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chorus_coordinator::fusion::Rule;
use chorus_coordinator::weights::{LearnedRule, LearnedSet, LearnedWeights};

use super::learned::{Learned, Quality};
use crate::learn::{Identity, can_be_replaced, replace};

/// The largest file that is read.
const LARGEST: u64 = 16 << 20;

/// A file that can be written, and what is in it already.
#[derive(Debug)]
pub(super) struct WeightsFile {
    path: PathBuf,
    weights: LearnedWeights,
}

impl WeightsFile {
    /// Looks whether weights of this ensemble can be written there. What was learned for other rules stays.
    ///
    /// # Errors
    /// It is something else, or of another ensemble, and is not to be replaced; or nothing can be written there.
    pub(super) fn open(path: &Path, ensemble: &Identity, anew: bool) -> anyhow::Result<Self> {
        let shown = path.display();
        can_be_replaced(path).with_context(|| format!("can't write {shown}"))?;
        let weights = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => ensemble.unlearned(),
            Err(error) => return Err(error).with_context(|| format!("can't read {shown}")),
            Ok(found) if !found.is_file() => bail!("{shown} is no file that weights can be written to"),
            Ok(_) if anew => ensemble.unlearned(),
            Ok(found) if found.len() > LARGEST => {
                bail!("{shown} is no file of weights; --replace overwrites it")
            }
            Ok(_) => {
                let text = fs::read_to_string(path).with_context(|| format!("can't read {shown}"))?;
                let weights = LearnedWeights::from_toml(&text)
                    .with_context(|| format!("{shown} is no file of weights; --replace overwrites it"))?;
                if let Some(difference) = Identity::of_weights(&weights).difference(ensemble) {
                    bail!("{shown} is of another ensemble: {difference}; --replace overwrites it");
                }
                weights
            }
        };
        Ok(Self { path: path.to_owned(), weights })
    }

    /// Adds what was learned for a rule, or puts it in the place of what was, and writes the file in one piece.
    ///
    /// # Errors
    /// It can't be written: what was there before still is.
    pub(super) fn write(&self, rule: Rule, learned: &Learned) -> anyhow::Result<()> {
        let mut weights = self.weights.clone();
        weights.rules.insert(rule, rule_of(learned));
        let text = weights.to_toml().context("what was learned can't be written")?;
        replace(&self.path, text.as_bytes()).with_context(|| format!("can't write {}", self.path.display()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn rule_of(learned: &Learned) -> LearnedRule {
    let is_vote = matches!(learned.quality, Quality::Accuracy { .. });
    let sets = learned.sets.iter().map(|set| LearnedSet {
        members: set.members.iter().filter_map(|member| learned.members.get(*member).cloned()).collect(),
        weights: set.weights.clone(),
        perplexity: set.value.filter(|_| !is_vote).map(|value| value.max(1.0)),
        accuracy: set.value.filter(|_| is_vote),
    });
    LearnedRule {
        method: learned.method.clone(),
        tokens: learned.tokens as u64,
        threshold: match &learned.quality {
            Quality::Accuracy { choice, .. } => Some(choice.best.threshold),
            Quality::Perplexity(_) => None,
        },
        sets: sets.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::learned::{Perplexities, Set};
    use super::*;

    fn ensemble(model: &str) -> Identity {
        serde_json::from_value(
            serde_json::json!({ "vocabulary": "v", "members": [{ "name": "alto", "model": model }] }),
        )
        .unwrap()
    }

    fn learned() -> Learned {
        let perplexities = Perplexities {
            members: vec![4.0],
            equal: 4.0,
            learned: 4.0,
            duality_gap: 0.0,
            folds: None,
            values: None,
        };
        Learned {
            method: "em".into(),
            tokens: 7,
            members: vec!["alto".into()],
            weights: vec![1.0],
            sets: vec![Set { members: vec![0], weights: vec![1.0], value: Some(4.0) }],
            quality: Quality::Perplexity(Box::new(perplexities)),
        }
    }

    #[test]
    fn what_was_learned_for_another_rule_stays_and_another_ensemble_s_file_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.toml");
        let write =
            |rule| WeightsFile::open(&path, &ensemble("a"), false).unwrap().write(rule, &learned()).unwrap();
        write(Rule::WeightedAverage);
        write(Rule::LogLinear);
        let read = || LearnedWeights::from_toml(&fs::read_to_string(&path).unwrap()).unwrap();
        let before = read();
        assert_eq!(
            before.rules.keys().copied().collect::<Vec<_>>(),
            [Rule::WeightedAverage, Rule::LogLinear]
        );
        let error = WeightsFile::open(&path, &ensemble("b"), false).unwrap_err().to_string();
        assert!(
            error.contains("is of another ensemble: alto hosts the model b and hosted a; --replace"),
            "{error}"
        );
        assert_eq!(read(), before);
        WeightsFile::open(&path, &ensemble("b"), true).unwrap().write(Rule::LogLinear, &learned()).unwrap();
        assert_eq!((read().rules.len(), read().members[0].model.as_str()), (1, "b"));
    }

    #[test]
    fn where_nothing_can_be_written_nothing_is_begun() {
        let folder = tempfile::tempdir().unwrap();
        let open = |path: &str| WeightsFile::open(&folder.path().join(path), &ensemble("a"), false);
        let error = open("nowhere/weights.toml").unwrap_err();
        assert!(error.to_string().starts_with("can't write "), "{error}");
        fs::create_dir(folder.path().join("folder")).unwrap();
        assert!(
            open("folder").unwrap_err().to_string().ends_with("is no file that weights can be written to")
        );
        fs::write(folder.path().join("notes.toml"), "colour = 'red'").unwrap();
        let error = open("notes.toml").unwrap_err().to_string();
        assert!(error.ends_with("is no file of weights; --replace overwrites it"), "{error}");
        assert_eq!(fs::read_to_string(folder.path().join("notes.toml")).unwrap(), "colour = 'red'");
    }
}
