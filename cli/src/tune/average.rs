//! Weights of the weighted average. Knows nothing about how they are written or shown.

use std::ops::ControlFlow;

use anyhow::Context as _;
use chorus_tune::{
    EmOptions, LogProbs, LogProbsError, Progress, cross_validate, equal_shares, learn as learn_weights,
    learn_sets, member_values,
};

use super::args::{Learning, TuneArgs};
use super::learned::{Learned, Perplexities, Quality, Set};
use super::{spinner, warn_of_left_out};
use crate::learn::{HeldOut, RunningEnsemble, SCORES, Scores, collect_scores};

pub(super) async fn learn(
    arguments: &TuneArgs,
    learning: Learning,
    ensemble: &RunningEnsemble,
    text: &HeldOut,
) -> anyhow::Result<Learned> {
    let cache = arguments.collect.cache(SCORES, text, ensemble)?;
    let collecting = arguments.collect.collecting(ensemble, &cache, text, "scoring");
    let collected = collect_scores(&collecting, text.parts.clone()).await?;
    warn_of_left_out(&collected);
    let scores = Scores::load(&cache, &collected.parts)?;
    of_scores(learning, ensemble.identity.names(), &scores, ensemble.vocabulary.len() as usize, &text.origin)
}

/// What a matrix teaches.
fn of_scores(
    learning: Learning,
    names: Vec<String>,
    scores: &Scores,
    vocabulary_size: usize,
    origin: &str,
) -> anyhow::Result<Learned> {
    let log_probs = LogProbs::new(names, &scores.log_probs);
    let log_probs = log_probs.map_err(|error| at_its_place(error, &scores.positions, origin))?;
    let bar = spinner("learning")?;
    let mut observer = |progress: &Progress| {
        bar.set_message(format!(
            "learning: part {} of {}, pass {}, {:.6} nats a token",
            progress.part + 1,
            progress.parts,
            progress.passes,
            -progress.best
        ));
        bar.tick();
        ControlFlow::Continue(())
    };
    let learned = learn_weights(&log_probs, &learning.method, &mut observer)?;
    let folds =
        learning.folds.map(|folds| cross_validate(&log_probs, &learning.method, folds, &mut observer));
    let folds = folds.transpose().with_context(|| format!("{origin} can't be cut into folds"))?;
    let sets = learn_sets(&log_probs, &EmOptions::default(), &mut observer)?;
    bar.finish_and_clear();
    let members = log_probs.members().to_vec();
    let all = members.len();
    let set = |set: &chorus_tune::SetWeights| {
        // Of all members the weights are those of the method that was asked for.
        let (weights, perplexity) = if set.members.len() == all {
            (learned.weights.clone(), learned.perplexity)
        } else {
            (set.weights.clone(), set.perplexity)
        };
        Set {
            members: set.members.clone(),
            weights,
            value: Some(perplexity).filter(|value| value.is_finite()),
        }
    };
    let perplexities = Perplexities {
        members: (0..all).filter_map(|member| log_probs.perplexity_of(member)).collect(),
        equal: log_probs.perplexity(&equal_shares(all))?,
        learned: learned.perplexity,
        duality_gap: learned.duality_gap,
        folds,
        // A member that holds a token impossible has no finite worth; the weights are learned all the same.
        values: member_values(&sets, vocabulary_size).ok(),
    };
    Ok(Learned {
        method: learning.name(),
        tokens: log_probs.tokens(),
        sets: sets.sets.iter().map(set).collect(),
        weights: learned.weights.clone(),
        members,
        quality: Quality::Perplexity(Box::new(perplexities)),
    })
}

/// What can't be learned from, with the place in the text.
fn at_its_place(error: LogProbsError, positions: &[usize], origin: &str) -> anyhow::Error {
    let token = match &error {
        LogProbsError::Value { token, .. } | LogProbsError::Impossible { token, .. } => Some(*token),
        _ => None,
    };
    let place = token.and_then(|token| positions.get(token));
    let context = match place {
        Some(place) => format!("the ensemble's numbers for token {place} of {origin} can't be learned from"),
        None => format!("nothing can be learned from {origin}"),
    };
    anyhow::Error::from(error).context(context)
}

#[cfg(test)]
mod tests {
    use chorus_tune::Method;

    use super::*;

    const EM: Learning =
        Learning { method: Method::Em(EmOptions { tolerance: 1e-12, passes: 2000 }), folds: None };

    fn scores(rows: &[[f64; 2]]) -> Scores {
        Scores {
            positions: (10..10 + rows.len()).collect(),
            log_probs: rows.iter().map(|row| row.iter().map(|value| value.ln()).collect()).collect(),
        }
    }

    fn of(learning: Learning, rows: &[[f64; 2]]) -> anyhow::Result<Learned> {
        of_scores(learning, vec!["alto".into(), "bass".into()], &scores(rows), 4, "valid.txt")
    }

    #[test]
    fn a_matrix_with_a_known_optimum_has_it_and_every_set_is_there() {
        // ln(a 0.8 + (1 - a) 0.2) once and ln(a 0.2 + (1 - a) 0.8) twice: the derivative is 0 where the mixture gives
        // the first token 1/3, at a = 2/9.
        let learned = of(EM, &[[0.8, 0.2], [0.2, 0.8], [0.2, 0.8]]).unwrap();
        assert!((learned.weights[0] - 2.0 / 9.0).abs() < 1e-6, "{:?}", learned.weights);
        let sets: Vec<&[usize]> = learned.sets.iter().map(|set| set.members.as_slice()).collect();
        assert_eq!(sets, [&[0, 1][..], &[0], &[1]]);
        let Quality::Perplexity(found) = learned.quality else { panic!("a distribution has a perplexity") };
        let expected = (-(2.0 * (2.0_f64 / 3.0).ln() + (1.0_f64 / 3.0).ln()) / 3.0).exp();
        assert!((found.learned - expected).abs() < 1e-9 && found.equal > found.learned);
        assert!(found.values.is_some());
    }

    #[test]
    fn numbers_that_nothing_can_be_learned_from_are_named_with_their_place() {
        for (rows, said) in [
            (
                &[[0.5, 0.5], [0.0, 0.0]][..],
                "token 11 of valid.txt can't be learned from: token 1 has probability zero",
            ),
            (
                &[[0.5, f64::NAN]],
                "token 10 of valid.txt can't be learned from: member \"bass\" gives token 0",
            ),
        ] {
            let error = format!("{:#}", of(EM, rows).unwrap_err());
            assert!(error.contains(said), "{error}");
        }
        let learned = of(EM, &[[0.5, 0.0], [0.25, 0.5]]).unwrap();
        let Quality::Perplexity(found) = learned.quality else { panic!("a distribution has a perplexity") };
        assert!(found.values.is_none() && learned.sets[2].value.is_none());
        let folds = Learning { folds: Some(3), ..EM };
        let error = format!("{:#}", of(folds, &[[0.5, 0.5], [0.4, 0.6]]).unwrap_err());
        assert!(error.starts_with("valid.txt can't be cut into folds: "), "{error}");
    }
}
