//! Searches held against the enumeration of every sequence.

use proptest::prelude::*;

use super::*;

const END: u32 = 0;

fn token(id: u32, log_prob: f64) -> Continuation {
    Continuation { id, log_prob, bent: log_prob, of_members: Vec::new() }
}

/// Searches a model that says after every sequence how likely each of the tokens 0 (the end), 1, 2, ... is.
fn search(beam: Beam, max_tokens: usize, model: impl Fn(&[u32]) -> Vec<f64>) -> Vec<Found<Vec<u32>>> {
    let mut search = BeamSearch::new(beam, max_tokens);
    let mut sequences: Vec<Vec<u32>> = vec![Vec::new()];
    while !sequences.is_empty() {
        let after = |sequence: &Vec<u32>| {
            let ids = 0_u32..;
            ids.zip(model(sequence)).map(|(id, log_prob)| token(id, log_prob)).collect()
        };
        let continuations = sequences.iter().map(after).collect();
        let kept = search.advance(continuations, |parent, id| {
            let mut sequence = sequences[parent].clone();
            sequence.push(id);
            (sequence, (id == END).then_some(Finish::EndToken))
        });
        sequences = kept.into_iter().map(|kept| kept.text).collect();
    }
    search.into_found()
}

/// Every sequence that ends, or is as long as it may be, best first.
fn every_sequence(beam: Beam, max_tokens: usize, model: impl Fn(&[u32]) -> Vec<f64>) -> Vec<(Vec<u32>, f64)> {
    let mut open = vec![(Vec::new(), 0.0)];
    let mut all = Vec::new();
    while let Some((sequence, sum)) = open.pop() {
        for (id, log_prob) in (0..).zip(model(&sequence)) {
            let mut longer = sequence.clone();
            longer.push(id);
            if id == END || longer.len() == max_tokens {
                all.push((longer.clone(), beam.score(sum + log_prob, longer.len())));
            } else {
                open.push((longer, sum + log_prob));
            }
        }
    }
    all.sort_by(|(one, score), (other, other_score)| other_score.total_cmp(score).then(one.cmp(other)));
    all
}

/// A distribution of as many tokens as there are weights, other ones after every sequence.
fn model(weights: Vec<f64>) -> impl Fn(&[u32]) -> Vec<f64> + Clone {
    move |sequence: &[u32]| {
        let turn = sequence.iter().fold(sequence.len(), |turn, id| turn * 7 + *id as usize);
        let turned: Vec<f64> =
            (0..weights.len()).map(|place| weights[(place + turn) % weights.len()]).collect();
        let sum: f64 = turned.iter().sum();
        turned.into_iter().map(|weight| (weight / sum).ln()).collect()
    }
}

proptest! {
    #[test]
    fn a_beam_that_holds_everything_finds_the_best_of_all(
        weights in prop::collection::vec(0.05..1.0_f64, 3),
        length_penalty in prop_oneof![Just(0.0), 0.0..2.0],
        max_tokens in 1..5_usize,
        n_best in 1..6_usize,
    ) {
        let beam = Beam { size: 100, length_penalty, n_best };
        let found = search(beam, max_tokens, model(weights.clone()));
        let all = every_sequence(beam, max_tokens, model(weights));
        prop_assert_eq!(found.len(), n_best.min(all.len()));
        for (found, (tokens, score)) in found.iter().zip(&all) {
            prop_assert!((found.score - score).abs() < 1e-9, "{:?} {}: {:?}", tokens, score, found);
            prop_assert_eq!(&found.text, &found.tokens.iter().map(|token| token.id).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_beam_of_one_is_greedy(weights in prop::collection::vec(0.05..1.0_f64, 2..5), max_tokens in 1..6_usize) {
        let model = model(weights);
        let found = search(Beam { size: 1, length_penalty: 0.0, n_best: 1 }, max_tokens, model.clone());
        let mut greedy: Vec<u32> = Vec::new();
        while greedy.len() < max_tokens && greedy.last() != Some(&END) {
            let log_probs = model(&greedy);
            let best = (0..log_probs.len()).rev().max_by(|one, other| log_probs[*one].total_cmp(&log_probs[*other]));
            greedy.push(best.unwrap() as u32);
        }
        prop_assert_eq!(&found[0].text, &greedy);
    }

    #[test]
    fn what_is_told_is_in_order_and_each_once(
        weights in prop::collection::vec(0.05..1.0_f64, 2..5),
        size in 1..6_usize,
        length_penalty in 0.0..2.0_f64,
    ) {
        let found = search(Beam { size, length_penalty, n_best: size }, 6, model(weights));
        prop_assert!(found.is_sorted_by(|one, next| one.score >= next.score));
        let mut texts: Vec<_> = found.iter().map(|found| found.text.clone()).collect();
        texts.sort();
        texts.dedup();
        prop_assert_eq!(texts.len(), found.len());
    }
}

#[test]
fn a_longer_sequence_is_preferred_as_far_as_the_penalty_says() {
    // The end at once has 0.4, three tokens and the end have 0.6 * 0.8^3.
    let model = |sequence: &[u32]| {
        let likely = if sequence.is_empty() { 0.6_f64 } else { 0.8 };
        match sequence.len() {
            0..3 => vec![(1.0 - likely).ln(), likely.ln()],
            _ => vec![0.8_f64.ln(), 0.2_f64.ln()],
        }
    };
    let best = |length_penalty| search(Beam { size: 4, length_penalty, n_best: 1 }, 8, model).remove(0).text;
    assert_eq!(best(0.0), [END]);
    assert_eq!(best(1.0), [1, 1, 1, END]);
}

#[test]
fn what_can_t_be_is_not_kept() {
    let only_the_first = |_: &[u32]| vec![f64::NEG_INFINITY, 0.0, f64::NEG_INFINITY];
    let found = search(Beam { size: 4, length_penalty: 0.0, n_best: 4 }, 3, only_the_first);
    assert_eq!(found.iter().map(|found| found.text.as_slice()).collect::<Vec<_>>(), [[1, 1, 1]]);
    assert_eq!((found[0].finish, found[0].score), (Finish::MaxTokens, 0.0));
}
