//! The threshold of a vote, and weights that decide between equal votes. Knows nothing about how they are written or shown.

use std::ops::ControlFlow;

use anyhow::Context as _;
use chorus_tune::vote::{Candidates, TokenCandidates};
use chorus_tune::{
    EmOptions, LogProbs, Method, Progress, equal_shares, learn as learn_weights, surviving_sets, unobserved,
};

use super::args::TuneArgs;
use super::learned::{Learned, Quality, Set};
use super::{spinner, warn_of_left_out};
use crate::learn::{HeldOut, LISTS, ListedPosition, Lists, RunningEnsemble, collect_lists};

pub(super) async fn learn(
    arguments: &TuneArgs,
    ensemble: &RunningEnsemble,
    text: &HeldOut,
) -> anyhow::Result<Learned> {
    let thresholds = arguments.thresholds()?;
    let cache = arguments.collect.cache(LISTS, text, ensemble)?;
    let collecting = arguments.collect.collecting(ensemble, &cache, text, "asking for likeliest tokens");
    let collected = collect_lists(&collecting, text.parts.clone()).await?;
    warn_of_left_out(&collected);
    let lists = Lists::load(&cache, &collected.parts)?;
    of_lists(&thresholds, arguments.vote_weights, ensemble.identity.names(), &lists)
}

fn of_lists(
    thresholds: &[f64],
    with_weights: bool,
    names: Vec<String>,
    lists: &Lists,
) -> anyhow::Result<Learned> {
    let all: Vec<usize> = (0..names.len()).collect();
    let candidates = candidates(lists, &all)?;
    let bar = spinner("choosing the threshold")?;
    let mut weights = equal_shares(names.len());
    let mut choice = candidates.choose_threshold(thresholds, &weights)?;
    let equal = choice.best.accuracy;
    if with_weights {
        bar.set_message("looking for weights that decide between equal votes");
        let mut observer = |_: &Progress| {
            bar.tick();
            ControlFlow::Continue(())
        };
        let starts: Vec<Vec<f64>> = best_mixture(&names, lists).into_iter().collect();
        weights = candidates.learn_weights(choice.best.threshold, &starts, &mut observer)?.weights;
        // Other weights may have another best threshold; never a worse one than they were found with.
        choice = candidates.choose_threshold(thresholds, &weights)?;
    }
    let threshold = choice.best.threshold;
    let mut sets = Vec::new();
    for members in surviving_sets(names.len()) {
        bar.set_message(format!("what is left without others: {} members", members.len()));
        let own: Vec<f64> = members.iter().filter_map(|member| weights.get(*member).copied()).collect();
        // Those who had no say among all may have to decide among themselves.
        let own = if own.iter().sum::<f64>() > 0.0 { own } else { equal_shares(members.len()) };
        let point = self::candidates(lists, &members)?.hold(threshold, &own)?;
        sets.push(Set { members, weights: own, value: Some(point.accuracy) });
    }
    bar.finish_and_clear();
    let method = if with_weights { "thresholds and weights by accuracy" } else { "thresholds by accuracy" };
    Ok(Learned {
        method: method.to_owned(),
        tokens: lists.positions.len(),
        members: names,
        weights,
        sets,
        quality: Quality::Accuracy { choice, equal },
    })
}

/// What some members say.
pub(crate) fn candidates(lists: &Lists, members: &[usize]) -> anyhow::Result<Candidates> {
    let mut candidates = Candidates::new(members.len())?;
    let mut log_probs = Vec::new();
    for (place, ListedPosition { token, ids, log_probs: rows }) in lists.positions.iter().enumerate() {
        log_probs.clear();
        for row in rows {
            log_probs
                .extend(members.iter().filter_map(|member| row.get(*member)).map(|value| f64::from(*value)));
        }
        let pushed = candidates.push(TokenCandidates { ids, log_probs: &log_probs, target: *token });
        pushed.with_context(|| format!("what the ensemble says of token {place} can't be used"))?;
    }
    Ok(candidates)
}

/// The weights under which the tokens that came are likeliest, where they are listed.
fn best_mixture(names: &[String], lists: &Lists) -> Option<Vec<f64>> {
    let rows = lists.positions.iter().filter_map(|position| {
        let place = position.ids.binary_search(&position.token).ok()?;
        Some(position.log_probs.get(place)?.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>())
    });
    let (log_probs, _) = LogProbs::without_impossible_tokens(names.to_vec(), rows).ok()?;
    let learned = learn_weights(&log_probs, &Method::Em(EmOptions::default()), &mut unobserved).ok()?;
    Some(learned.weights)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three members over three tokens; bass is right wherever alto and cello are each sure of something else.
    fn lists() -> Lists {
        let position = |token: u32, rows: [[f64; 3]; 3]| ListedPosition {
            token,
            ids: vec![0, 1, 2],
            log_probs: rows.iter().map(|row| row.iter().map(|value| value.ln() as f32).collect()).collect(),
        };
        // [token][member]
        let split = position(1, [[0.8, 0.1, 0.1], [0.1, 0.6, 0.1], [0.1, 0.3, 0.8]]);
        let agreed = position(0, [[0.5, 0.4, 0.5], [0.3, 0.3, 0.2], [0.2, 0.3, 0.3]]);
        Lists { positions: [split.clone(), split, agreed].to_vec() }
    }

    fn names() -> Vec<String> {
        ["alto", "bass", "cello"].map(str::to_owned).to_vec()
    }

    #[test]
    fn weights_decide_between_equal_votes_and_are_never_worse() {
        let equal = of_lists(&[0.45, 0.9], false, names(), &lists()).unwrap();
        let Quality::Accuracy { choice, .. } = &equal.quality else { panic!("a vote has an accuracy") };
        assert_eq!(choice.curve.len(), 2);
        assert!((choice.best.accuracy - 1.0 / 3.0).abs() < 1e-12);
        let weighted = of_lists(&[0.45, 0.9], true, names(), &lists()).unwrap();
        let Quality::Accuracy { choice, equal } = &weighted.quality else { panic!("a vote has an accuracy") };
        assert!(choice.best.accuracy > *equal, "{choice:?}");
        assert!(weighted.weights[1] > weighted.weights[0] && weighted.weights[1] > weighted.weights[2]);
        let alone = weighted.sets.iter().find(|set| set.members == [1]).unwrap();
        assert_eq!((alone.value, &alone.weights[..]), (Some(1.0), &[weighted.weights[1]][..]));
        assert_eq!(weighted.sets.len(), 7);
    }
}
