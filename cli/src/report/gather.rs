//! From a running ensemble to [`Figures`]: what has to be asked, and what chorus-tune makes of it. Knows nothing about pictures.

use anyhow::Context as _;
use chorus_coordinator::fusion::Rule;
use chorus_tune::{
    Bins, Calibration, EmOptions, LogProbs, Method, cross_validate, equal_shares, learn, learn_sets,
    member_values, unobserved,
};

use super::figures::{Figures, Member};
use crate::learn::{
    CollectArgs, Collected, HeldOut, LISTS, Lists, RunningEnsemble, SCORES, Scores, collect_fused,
    collect_lists, collect_scores, fused_name,
};
use crate::tune::candidates;

/// Bins with as many predictions each: where predictions are few, a bin of equal width would say nothing.
const BINS: Bins = Bins::EqualMass(20);

/// Thresholds of the curve.
const THRESHOLDS: [f64; 20] = [
    0.01, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8,
    0.9, 0.95,
];

/// Asks and computes.
pub(super) async fn gather(
    asking: &CollectArgs,
    folds: usize,
    ensemble: &RunningEnsemble,
    text: &HeldOut,
) -> anyhow::Result<Figures> {
    let scores_cache = asking.cache(SCORES, text, ensemble)?;
    let collecting = asking.collecting(ensemble, &scores_cache, text, "scoring");
    let scored = collect_scores(&collecting, text.parts.clone()).await?;
    let lists_cache = asking.cache(LISTS, text, ensemble)?;
    let collecting = asking.collecting(ensemble, &lists_cache, text, "asking for likeliest tokens");
    let listed = collect_lists(&collecting, scored.parts.clone()).await?;
    let mut rules = Vec::new();
    for rule in [Rule::LogLinear, Rule::LogitMean, Rule::LogitMax] {
        let cache = asking.cache(&fused_name(rule), text, ensemble)?;
        let collecting = asking.collecting(ensemble, &cache, text, "scoring by another rule");
        let collected = collect_fused(&collecting, listed.parts.clone(), rule).await?;
        let nats = Scores::load_fused(&cache, &collected.parts)?;
        rules.push((rule.name().to_owned(), (-mean(&nats)).exp()));
    }
    let parts = &listed.parts;
    let scores = Scores::load(&scores_cache, parts)?;
    let lists = Lists::load(&lists_cache, parts)?;
    of_what_was_said(folds, ensemble, text, (&scores, &lists), &[&scored, &listed], rules)
}

fn of_what_was_said(
    folds: usize,
    ensemble: &RunningEnsemble,
    text: &HeldOut,
    (scores, lists): (&Scores, &Lists),
    collected: &[&Collected],
    mut rules: Vec<(String, f64)>,
) -> anyhow::Result<Figures> {
    let names = ensemble.identity.names();
    let log_probs = LogProbs::new(names.clone(), &scores.log_probs)
        .with_context(|| format!("nothing can be learned from {}", text.origin))?;
    let method = Method::Em(EmOptions::default());
    let learned = learn(&log_probs, &method, &mut unobserved)?;
    let folds = cross_validate(&log_probs, &method, folds, &mut unobserved)
        .with_context(|| format!("{} can't be cut into folds", text.origin))?;
    let sets = learn_sets(&log_probs, &EmOptions::default(), &mut unobserved)?;
    let equal = log_probs.perplexity(&equal_shares(names.len()))?;
    rules.insert(0, ("weighted_average, equal weights".to_owned(), equal));
    rules.insert(1, ("weighted_average, learned weights".to_owned(), learned.perplexity));
    let members = ensemble.status.members.iter().zip(names.iter().enumerate());
    let members = members.map(|(status, (place, name))| {
        Ok(Member {
            name: name.clone(),
            architecture: status.architecture.clone(),
            parameters: status.parameters,
            perplexity: log_probs.perplexity_of(place).unwrap_or(f64::INFINITY),
            calibration: Calibration::new(&predictions(lists, &one(place, names.len())), BINS)?,
        })
    });
    Ok(Figures {
        origin: text.origin.clone(),
        tokens: log_probs.tokens(),
        left_out: collected
            .iter()
            .flat_map(|collected| &collected.left_out)
            .map(|part| part.tokens.len())
            .sum(),
        members: members.collect::<anyhow::Result<_>>()?,
        rules,
        values: member_values(&sets, ensemble.vocabulary.len() as usize).ok(),
        calibration: Calibration::new(&predictions(lists, &learned.weights), BINS)?,
        vote: candidates(lists, &(0..names.len()).collect::<Vec<_>>())?
            .choose_threshold(&THRESHOLDS, &equal_shares(names.len()))?,
        weights: learned.weights,
        folds,
        sets,
    })
}

fn one(place: usize, members: usize) -> Vec<f64> {
    (0..members).map(|member| f64::from(u8::from(member == place))).collect()
}

/// The probability of the likeliest token under a mixture, and whether it came.
fn predictions(lists: &Lists, weights: &[f64]) -> Vec<(f64, bool)> {
    let of_position = |position: &crate::learn::ListedPosition| {
        let mixture = |row: &Vec<f32>| -> f64 {
            row.iter().zip(weights).map(|(log_prob, weight)| weight * f64::from(*log_prob).exp()).sum()
        };
        let likeliest = position.ids.iter().zip(&position.log_probs).map(|(id, row)| (*id, mixture(row)));
        let (id, probability) =
            likeliest.max_by(|(_, one), (_, other)| one.total_cmp(other)).unwrap_or((u32::MAX, 0.0));
        (probability.min(1.0), id == position.token)
    };
    lists.positions.iter().map(of_position).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learn::ListedPosition;

    #[test]
    fn a_prediction_is_the_mixture_s_likeliest_token() {
        let row = |values: [f64; 2]| values.iter().map(|value: &f64| value.ln() as f32).collect::<Vec<f32>>();
        let position =
            ListedPosition { token: 4, ids: vec![3, 4], log_probs: vec![row([0.6, 0.1]), row([0.3, 0.8])] };
        let lists = Lists { positions: vec![position] };
        let of = |weights: [f64; 2]| predictions(&lists, &weights)[0];
        let (sure, right) = of(one(0, 2).try_into().unwrap());
        assert!((sure - 0.6).abs() < 1e-6 && !right);
        let (sure, right) = of([0.5, 0.5]);
        assert!((sure - 0.55).abs() < 1e-6 && right);
    }
}
