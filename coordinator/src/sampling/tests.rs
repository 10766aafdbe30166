//! What temperature, top-k and top-p leave, and how it is drawn, against plain formulas in f64.

use proptest::prelude::*;

use super::*;
use crate::fusion::{Adjustment, Fused, Fusion, Row, Scratch, fuse};

/// One member's distribution.
fn of<T>(logits: &[f32], work: impl FnOnce(&mut Distribution<'_>) -> T) -> T {
    of_rows(&[logits], work)
}

/// The mixture of rows, each with the same share.
fn of_rows<T>(rows: &[&[f32]], work: impl FnOnce(&mut Distribution<'_>) -> T) -> T {
    let row = |logits: &&'_ [f32]| (1.0, chorus_simd::norm(logits));
    let norms: Vec<(f64, chorus_simd::Norm)> = rows.iter().map(row).collect();
    let rows = rows.iter().zip(norms);
    let rows: Vec<(f64, Row<'_>)> = rows
        .map(|(logits, (weight, norm))| (weight, Row::new(*logits, norm, logits.len()).unwrap()))
        .collect();
    Scratch::lent(|scratch| match fuse(&Fusion::default(), &rows, scratch).unwrap() {
        Fused::Distribution(mut distribution) => work(&mut distribution),
        Fused::Winner(_) => panic!("the weighted average is a distribution"),
    })
}

fn sampling(temperature: f64, top_k: u32, top_p: f64) -> Sampling {
    Sampling { temperature, top_k, top_p }
}

/// Everything that any uniform number can choose, by a fine grid over [0, 1).
fn choices(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
    let grid = (0..20_000).map(|step| f64::from(step) / 20_000.0);
    let choose = |distribution: &mut Distribution<'_>| {
        grid.map(|uniform| sampling.choose(distribution, uniform)).collect()
    };
    let mut ids: Vec<u32> = of(logits, choose);
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn temperature_0_is_the_likeliest_and_of_equal_ones_the_lowest() {
    let logits = [0.0, 3.0, 1.0, 3.0];
    assert_eq!(choices(sampling(0.0, 0, 1.0), &logits), [1]);
    assert_eq!(choices(sampling(1e-300, 0, 1.0), &logits), [1, 3]);
}

#[test]
fn top_k_keeps_the_k_likeliest_and_of_equal_ones_the_lowest() {
    let logits = [0.0, 2.0, 0.0, 1.0, 0.0];
    for (top_k, kept) in [
        (1, vec![1]),
        (2, vec![1, 3]),
        (3, vec![0, 1, 3]),
        (5, vec![0, 1, 2, 3, 4]),
        (u32::MAX, vec![0, 1, 2, 3, 4]),
    ] {
        assert_eq!(choices(sampling(1.0, top_k, 1.0), &logits), kept, "top_k {top_k}");
    }
}

#[test]
fn top_p_keeps_the_smallest_set_that_reaches_it() {
    let half_quarter_eighths = [0.125, 0.5, 0.125, 0.25].map(f32::ln);
    for (top_p, kept) in [
        (1e-9, vec![1]),
        (0.49, vec![1]),
        (0.51, vec![1, 3]),
        (0.76, vec![0, 1, 3]),
        (0.89, vec![0, 1, 2, 3]),
    ] {
        let chosen = choices(sampling(1.0, 0, top_p), &half_quarter_eighths);
        assert_eq!(chosen, kept, "top_p {top_p}");
    }
}

#[test]
fn top_p_counts_what_temperature_and_top_k_leave() {
    let logits = [0.5, 0.3, 0.2].map(f32::ln);
    assert_eq!(choices(sampling(1.0, 0, 0.55), &logits), [0, 1]);
    // Of the two that are left, the first has 0.625.
    assert_eq!(choices(sampling(1.0, 2, 0.6), &logits), [0]);
    // Sharpened to 0.66, 0.24, 0.11.
    assert_eq!(choices(sampling(0.5, 0, 0.55), &logits), [0]);
}

#[test]
fn of_many_equal_tokens_the_lower_ids_stay() {
    for (sampling, most) in [
        (sampling(1.0, 0, 0.5), 2500),
        (sampling(1.0, 1234, 1.0), 1234),
        (sampling(3.0, 1234, 0.5), 617),
        (sampling(0.1, 4999, 0.1), 500),
    ] {
        of(&[0.0; 5000], |flat| {
            assert_eq!(sampling.choose(flat, 0.0), 0);
            assert_eq!(sampling.choose(flat, 1.0 - 1e-9), most - 1, "{sampling:?}");
            // In the order of ids.
            assert_eq!(sampling.choose(flat, 0.5 + 1e-9), most / 2, "{sampling:?}");
        });
    }
}

#[test]
fn tokens_that_f32_can_t_tell_apart_keep_their_order() {
    // Both mixtures round to the same f32; the second token is the likelier one by 1e-12.
    let logits = [[1e-12_f32, 0.0, -1.0], [0.0, 1.5e-12, -1.0]];
    of_rows(&logits.each_ref().map(|row| &row[..]), |distribution| {
        assert!(distribution.log_prob(1) > distribution.log_prob(0));
        for temperature in [0.01, 0.5, 1.0, 5.0] {
            for uniform in [0.0, 0.4, 0.6, 1.0 - 1e-9] {
                let only = sampling(temperature, 1, 1.0).choose(distribution, uniform);
                let nucleus = sampling(temperature, 0, 1e-6).choose(distribution, uniform);
                assert_eq!((only, nucleus), (1, 1), "at {temperature}");
            }
        }
    });
}

#[test]
fn truncation_orders_exactly_what_f32_does_not() {
    // The columns (a, b) and (b, a) with e^a + e^b = 2 but for the rounding of b: all as likely as each other to 1e-7.
    let column = |step: usize| {
        let a = (step as f32 / 150.0 - 0.5) * 1.2;
        [a, (2.0 - f64::from(a).exp()).ln() as f32]
    };
    let one: Vec<f32> = (0..150).flat_map(column).collect();
    let other: Vec<f32> = one.as_chunks::<2>().0.iter().flat_map(|[a, b]| [*b, *a]).collect();
    of_rows(&[&one, &other], |distribution| {
        let log_probs: Vec<f64> = distribution.log_probs().collect();
        let mut sorted: Vec<u32> = (0..300).collect();
        sorted.sort_by(|a, b| log_probs[*b as usize].total_cmp(&log_probs[*a as usize]));
        for (temperature, top_k) in [(1.0, 40), (1.0, 150), (0.5, 77), (5.0, 299), (0.1, 150)] {
            let mut kept = sorted[..top_k].to_vec();
            kept.sort_unstable();
            let sampling = sampling(temperature, top_k as u32, 1.0);
            let uniforms = (0..3000).map(|step| f64::from(step) / 3000.0);
            let mut chosen: Vec<u32> =
                uniforms.map(|uniform| sampling.choose(distribution, uniform)).collect();
            chosen.dedup();
            assert_eq!(chosen, kept, "{sampling:?}");
        }
    });
}

#[test]
fn what_f32_loses_is_weighed_at_a_high_temperature() {
    // Probabilities of e^-200 and less: 1 : e^-2 : e^-4 : e^-10 at a temperature of 100.
    let logits = [0.0, -200.0, -400.0, -1000.0];
    let weights = [0.0, -2.0, -4.0, -10.0].map(f64::exp);
    for uniform in (0..1000).map(|step| f64::from(step) / 1000.0) {
        let place = uniform * weights.iter().sum::<f64>();
        let expected = (0..4).find(|id| weights[..=*id].iter().sum::<f64>() > place).unwrap();
        let chosen = of(&logits, |distribution| sampling(100.0, 0, 1.0).choose(distribution, uniform));
        assert_eq!(chosen as usize, expected, "at {uniform}");
    }
    // And what is huge is not told apart from infinity by a temperature that is huge too.
    assert_eq!(choices(sampling(1e300, 0, 1.0), &[0.0, -1e30, f32::MIN]), [0, 1, 2]);
    assert_eq!(choices(sampling(1e300, 2, 1.0), &[0.0, -1e30, f32::MIN]), [0, 1]);
    assert_eq!(choices(sampling(1.0, 0, 1.0), &[f32::MIN, f32::MAX, f32::MIN]), [1]);
}

#[test]
fn a_low_temperature_sees_differences_that_f32_does_not() {
    // 1e-9 apart in their log-probabilities: at a temperature of 1e-9 one weighs e times as much as the other.
    let logits = [1e-9_f32, 0.0];
    let share = 1.0_f64.exp() / (1.0 + 1.0_f64.exp());
    of(&logits, |distribution| {
        let apart = distribution.log_prob(0).unwrap() - distribution.log_prob(1).unwrap();
        assert!((apart - 1e-9).abs() < 1e-12);
        let choose = |distribution: &mut Distribution<'_>, uniform| {
            sampling(1e-9, 0, 1.0).choose(distribution, uniform)
        };
        assert_eq!([share - 1e-3, share + 1e-3].map(|uniform| choose(distribution, uniform)), [0, 1]);
    });
}

#[test]
fn the_uniform_number_follows_from_seed_and_index_alone() {
    let forwards: Vec<f64> = (0..100).map(|index| uniform(7, index)).collect();
    let backwards: Vec<f64> = (0..100).rev().map(|index| uniform(7, index)).collect();
    assert!(forwards.iter().eq(backwards.iter().rev()));
    assert!(forwards.iter().all(|u| (0.0..1.0).contains(u)));
    let mut distinct: Vec<u64> =
        (0..100).flat_map(|index| [uniform(7, index).to_bits(), uniform(8, index).to_bits()]).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 200);
}

#[test]
fn the_stream_of_a_seed_never_changes() {
    // Recorded once: a change here changes every text that a seed stands for.
    let recorded = [uniform(0, 0), uniform(0, 1), uniform(u64::MAX, u32::MAX)].map(f64::to_bits);
    assert_eq!(recorded, [4604562003098661703, 4602064919497455152, 4601744338986430034]);
}

#[test]
fn members_draw_as_often_as_their_weights_say() {
    let weights = [2.0, 0.0, 1.0, 5.0];
    let members = || weights.into_iter().enumerate();
    let draws = 20_000;
    let mut counts = [0_u32; 4];
    for index in 0..draws {
        counts[drawing_member(3, index, members()).unwrap()] += 1;
    }
    let expected = weights.map(|weight| weight / 8.0 * f64::from(draws));
    let terms = counts.iter().zip(expected).filter(|(_, expected)| *expected > 0.0);
    let chi_squared: f64 = terms.map(|(count, e)| (f64::from(*count) - e).powi(2) / e).sum();
    // The 99.9th percentile with two degrees of freedom.
    assert!(chi_squared < 13.8, "{counts:?}: {chi_squared}");
    assert_eq!(counts[1], 0);
    let huge = drawing_member(3, 0, members().map(|(member, weight)| (member, weight * 1e307)));
    let tiny = drawing_member(3, 0, members().map(|(member, weight)| (member, weight * 1e-307)));
    assert_eq!((huge, tiny), (drawing_member(3, 0, members()), drawing_member(3, 0, members())));
}

#[test]
fn who_draws_says_nothing_about_what_is_drawn() {
    let members = [(0, 1.0), (1, 1.0)];
    // How often each member draws with a number in each quarter of [0, 1).
    let mut counts = [[0_u32; 4]; 2];
    for index in 0..20_000 {
        let member = drawing_member(5, index, members).unwrap();
        counts[member][(uniform(5, index) * 4.0) as usize] += 1;
    }
    let chi_squared: f64 =
        counts.iter().flatten().map(|count| (f64::from(*count) - 2500.0).powi(2) / 2500.0).sum();
    // The 99.9th percentile with seven degrees of freedom.
    assert!(chi_squared < 24.3, "{counts:?}: {chi_squared}");
}

#[test]
fn draws_have_the_frequencies_of_the_tempered_distribution() {
    let logits = [0.0, 1.0, 2.0, -1.0, 0.5];
    for (temperature, top_k) in [(1.0, 0), (0.5, 0), (2.0, 3)] {
        let sampling = sampling(temperature, top_k, 1.0);
        let draws = 20_000_u32;
        let mut counts = [0_u32; 5];
        of(&logits, |distribution| {
            for index in 0..draws {
                counts[sampling.choose(distribution, uniform(11, index)) as usize] += 1;
            }
        });
        let weights = [0.0, 1.0, 2.0, -1.0, 0.5_f64].map(|z| (z / temperature).exp());
        let kept = |id: usize| top_k == 0 || [1, 2, 4].contains(&id);
        let total: f64 = (0..5).filter(|id| kept(*id)).map(|id| weights[id]).sum();
        let mut chi_square = 0.0;
        for id in 0..5 {
            let expected = if kept(id) { weights[id] / total * f64::from(draws) } else { 0.0 };
            let difference = f64::from(counts[id]) - expected;
            if expected > 0.0 {
                chi_square += difference * difference / expected;
            } else {
                assert_eq!(counts[id], 0);
            }
        }
        // 99.9 % of chi-square with 4 degrees of freedom.
        assert!(chi_square < 18.47, "chi-square {chi_square} at {temperature}, top-k {top_k}");
    }
}

/// What is kept, and what it weighs, by sorting log-probabilities in f64: (id, weight), by id. With it comes how near the
/// last token that is kept is to being cut, or the first that is cut to being kept, as a share of all that may be kept.
fn kept(sampling: Sampling, log_probs: &[f64]) -> (Vec<(usize, f64)>, f64) {
    let largest = log_probs.iter().copied().fold(f64::MIN, f64::max);
    let weight = |id: usize| ((log_probs[id] - largest) / sampling.temperature).exp();
    let mut kept: Vec<(usize, f64)> = (0..log_probs.len()).map(|id| (id, weight(id))).collect();
    // A stable sort keeps the lower id in front.
    kept.sort_by(|a, b| log_probs[b.0].total_cmp(&log_probs[a.0]));
    if sampling.top_k > 0 {
        kept.truncate(sampling.top_k as usize);
    }
    let mut nearest = f64::INFINITY;
    if sampling.top_p < 1.0 {
        let mass: f64 = kept.iter().map(|(_, weight)| weight).sum();
        let mut sum = 0.0;
        let mut enough = kept.len();
        for (place, (_, weight)) in kept.iter().enumerate() {
            sum += weight;
            nearest = nearest.min((sum / mass - sampling.top_p).abs());
            if sum >= sampling.top_p * mass {
                enough = place + 1;
                break;
            }
        }
        kept.truncate(enough);
    }
    kept.sort_by_key(|(id, _)| *id);
    (kept, nearest)
}

fn assert_chosen(sampling: Sampling, rows: &[&[f32]], uniform: f64) -> Result<(), TestCaseError> {
    of_rows(rows, |distribution| {
        let log_probs: Vec<f64> = distribution.log_probs().collect();
        let (kept, nearest) = kept(sampling, &log_probs);
        let chosen = sampling.choose(distribution, uniform) as usize;
        // Where rounding decides how many are kept, one more or less changes everything.
        if nearest < 1e-5 {
            return Ok(());
        }
        let total: f64 = kept.iter().map(|(_, weight)| weight).sum();
        let place = kept.iter().position(|(id, _)| *id == chosen);
        let Some(place) = place else {
            return Err(TestCaseError::fail(format!("{chosen} was cut by {sampling:?}")));
        };
        let before: f64 = kept[..place].iter().map(|(_, weight)| weight).sum();
        prop_assert!(before / total <= uniform + 1e-5, "{sampling:?}: {before} of {total} at {uniform}");
        prop_assert!(
            (before + kept[place].1) / total >= uniform - 1e-5,
            "{sampling:?}: {before} of {total} at {uniform}"
        );
        Ok(())
    })
}

fn samplings() -> impl Strategy<Value = Sampling> {
    let temperature = prop_oneof![3 => Just(1.0), 3 => 0.05..4.0_f64, 1 => Just(1e-3), 1 => Just(300.0)];
    let top_k = prop_oneof![2 => Just(0), 1 => 1..6_u32, 2 => 0..220_u32, 1 => Just(u32::MAX)];
    let top_p = prop_oneof![2 => Just(1.0), 3 => 0.01..=1.0_f64, 1 => 0.9999..1.0_f64];
    (temperature, top_k, top_p).prop_map(|(temperature, top_k, top_p)| sampling(temperature, top_k, top_p))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_choice_is_the_inverse_of_the_cumulative_distribution_by_id(
        logits in prop::collection::vec(-20.0..20.0_f32, 1..200), sampling in samplings(), uniform in 0.0..1.0_f64,
    ) {
        assert_chosen(sampling, &[&logits], uniform)?;
    }

    #[test]
    fn the_choice_is_right_among_ties_neighbours_and_what_underflows(
        logits in prop::collection::vec(
            prop_oneof![
                3 => (-3_i8..3).prop_map(f32::from),
                2 => (0_u32..4).prop_map(|ulps| f32::from_bits(2.0_f32.to_bits() + ulps)),
                1 => -400.0_f32..-50.0,
                1 => Just(-1e30_f32),
            ],
            2..400,
        ),
        sampling in samplings(), uniform in 0.0..1.0_f64,
    ) {
        let (one, other) = logits.split_at(logits.len() / 2);
        assert_chosen(sampling, &[one, &other[..one.len()]], uniform)?;
        assert_chosen(sampling, &[&logits], uniform)?;
    }
}

proptest! {
    /// What f32 selects is what plain formulas in f64 say of the bent log-probabilities.
    #[test]
    fn a_bent_distribution_is_chosen_from_as_the_formula_says(
        logits in prop::collection::vec(prop_oneof![4 => -6.0..6.0_f32, 1 => -90.0..30.0_f32], 3..40),
        penalty in prop_oneof![Just(1.0), 0.2..5.0_f64],
        temperature in 0.4..2.0_f64,
        lists in prop::collection::vec(prop::collection::btree_set(0..40_u32, 0..12), 3),
        is_limited in any::<bool>(),
    ) {
        let size = logits.len() as u32;
        let within = |list: usize| lists[list].iter().copied().filter(|id| *id < size).collect::<Vec<u32>>();
        let (seen, forbidden, allowed) = (within(0), within(1), within(2));
        let allowed = is_limited.then_some(allowed.as_slice());
        let adjustment = Adjustment { repetition_penalty: penalty, seen: &seen, allowed, forbidden: &forbidden };
        let norm = chorus_simd::norm(&logits);
        let log_prob = |id: u32| f64::from(logits[id as usize]) - f64::from(norm.largest) - norm.log_sum;
        let bent: Vec<f64> = (0..size).map(|id| adjustment.bend(id, log_prob(id))).collect();
        prop_assume!(bent.iter().any(|bent| *bent > f64::NEG_INFINITY));
        let largest = bent.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = bent.iter().map(|bent| ((bent - largest) / temperature).exp()).collect();
        let sum: f64 = weights.iter().sum();
        of(&logits, |distribution| distribution.adjusted(&adjustment, |distribution| {
            let best = (0..size).rev().max_by(|one, other| bent[*one as usize].total_cmp(&bent[*other as usize]));
            prop_assert_eq!(Some(distribution.argmax()), best);
            let mut before = 0.0;
            for (id, weight) in (0..).zip(&weights) {
                if *weight / sum > 1e-4 {
                    let middle = (before + weight / 2.0) / sum;
                    prop_assert_eq!(sampling(temperature, 0, 1.0).choose(distribution, middle), id);
                }
                before += weight;
            }
            Ok(())
        }))?;
    }
}
