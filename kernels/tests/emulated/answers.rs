//! Answers about rows of logits, held against the same functions of a row on the host.

use chorus_kernels::{
    ANSWER_ROOM_BYTES, ANSWER_THREADS, Address, Answer, AnswersArguments, Ask, AskKind, Grid, Kernel,
    NO_TOKEN, emulated::launch,
};
use chorus_simd::{Reduced, Reduction, Room, norm};
use proptest::prelude::*;

const ROOM: u32 = 4096;

struct Found {
    answer: Answer,
    lists: Vec<u32>,
    logits: Vec<f32>,
}

/// Numbers as a device's memory has them: from 16 bytes on, filled up to packs of four with what nobody may take for one.
fn packs(numbers: &[f32]) -> Vec<u128> {
    let mut packs = vec![0; numbers.len().div_ceil(4)];
    let room: &mut [f32] = bytemuck::cast_slice_mut(&mut packs);
    room.fill(f32::NAN);
    room[..numbers.len()].copy_from_slice(numbers);
    packs
}

/// One row, whose logits are the sums of these numbers and biases.
fn find(numbers: &[f32], bias: &[f32], ask: Ask, ids: &[u32], is_staged: bool) -> Found {
    let (mut logits, bias) = (packs(numbers), packs(bias));
    let outputs = 4 * logits.len();
    let (mut answer, mut lists) = ([Answer::default()], vec![0; 2 * ROOM as usize]);
    let arguments = AnswersArguments {
        logits: Address(logits.as_mut_ptr() as u64),
        bias: Address(bias.as_ptr() as u64),
        asks: Address((&raw const ask) as u64),
        ids: Address(ids.as_ptr() as u64),
        answers: Address(answer.as_mut_ptr() as u64),
        lists: Address(lists.as_mut_ptr() as u64),
        vocabulary: numbers.len() as u32,
        outputs: outputs as u32,
        rows: 1,
        is_staged: is_staged.into(),
    };
    let staged = if is_staged { 4 * outputs as u32 } else { 0 };
    let grid = Grid::new((1, 1), ANSWER_THREADS).with_shared(ANSWER_ROOM_BYTES + staged);
    // SAFETY: the arguments are of these vectors.
    unsafe { launch(Kernel::Answers, grid, &arguments) }.unwrap();
    let logits = bytemuck::cast_slice(&logits)[..numbers.len()].to_vec();
    Found { answer: answer[0], lists, logits }
}

fn ask(kind: AskKind) -> Ask {
    Ask { kind, target: NO_TOKEN, count: 0, ids: 0, list: 0, room: ROOM, number: f64::INFINITY }
}

/// Few different values, so that many are equal; more tokens than threads at times.
fn logits() -> impl Strategy<Value = Vec<f32>> {
    let value = (-8_i8..8).prop_map(|value| f32::from(value) / 2.0);
    let fine = -12.0_f32..12.0;
    prop_oneof![
        prop::collection::vec(value, 1..60),
        prop::collection::vec(fine.clone(), 1..60),
        prop::collection::vec(fine, 500..1700),
    ]
}

fn list(found: &Found, count: u32) -> Vec<(u32, f32)> {
    let (ids, logits) = found.lists.split_at(ROOM as usize);
    let logits = logits.iter().map(|bits| f32::from_bits(*bits));
    ids.iter().copied().zip(logits).take(count as usize).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_device_finds_what_the_host_does(
        (numbers, bias) in logits().prop_flat_map(|numbers| {
            let bias = prop::collection::vec((-4_i8..4).prop_map(f32::from), numbers.len());
            (Just(numbers), bias)
        }),
        k in 0_usize..80,
        threshold in prop::option::of(0.001_f64..0.999),
        uniform in 0.0_f64..1.0,
        target in any::<prop::sample::Index>(),
        staged in any::<bool>(),
    ) {
        let row: Vec<f32> = numbers.iter().zip(&bias).map(|(number, bias)| number + bias).collect();
        let norm = norm(&row);
        let target = target.index(row.len()) as u32;
        let mut room = Room::default();

        let found = find(&numbers, &bias, Ask { target, ..ask(AskKind::Row) }, &[], staged);
        prop_assert_eq!(&found.logits, &row);
        prop_assert_eq!(found.answer.largest, norm.largest);
        prop_assert_eq!(found.answer.target, row[target as usize]);
        prop_assert!((found.answer.log_sum - norm.log_sum).abs() < 1e-6, "{:?} {:?}", found.answer, norm);

        let log_threshold = threshold.map(f64::ln);
        let number = log_threshold.unwrap_or(f64::INFINITY);
        let found = find(&numbers, &bias, Ask { count: k as u32, number, ..ask(AskKind::Top) }, &[], staged);
        let Reduced::Top { ids, logits } = (Reduction::Top { k, log_threshold }).of(&row, norm, &mut room) else {
            panic!("a top is asked for");
        };
        let expected: Vec<_> = ids.iter().copied().zip(logits.iter().copied()).collect();
        prop_assert_eq!(list(&found, found.answer.count), expected);

        let ids: Vec<u32> = (0..row.len() as u32).step_by(3).collect();
        let found = find(&numbers, &bias, Ask { count: ids.len() as u32, ..ask(AskKind::Ids) }, &ids, staged);
        let logits: Vec<f32> = found.lists[..ids.len()].iter().map(|bits| f32::from_bits(*bits)).collect();
        prop_assert_eq!(Reduced::Ids(&logits), Reduction::Ids(&ids).of(&row, norm, &mut room));

        let found = find(&numbers, &bias, Ask { number: uniform, ..ask(AskKind::Draw) }, &[], staged);
        let mass = |tokens: &[f32]| tokens.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>();
        let cumulative = |tokens: usize| mass(&row[..tokens]) / mass(&row);
        let drawn = found.answer.drawn as usize;
        prop_assert!(cumulative(drawn) <= uniform + 1e-6 && uniform - 1e-6 < cumulative(drawn + 1));
    }

    #[test]
    fn a_value_that_is_not_finite_is_found_wherever_it_is(length in 1_usize..1200, place in any::<prop::sample::Index>()) {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = vec![1.0; length];
            row[place.index(length)] = value;
            let found = find(&row, &vec![0.0; length], Ask { count: 1, ..ask(AskKind::Top) }, &[], true);
            prop_assert!(!found.answer.largest.is_finite() && found.answer.log_sum.is_nan());
            prop_assert_eq!(found.answer.count, 0);
        }
    }
}

#[test]
fn the_ends_of_the_unit_interval_draw_the_first_and_the_last_possible_token() {
    let row = [-2000.0, 0.0, 1.0, -2000.0];
    for (uniform, token) in [(0.0, 1), (1.0 - f64::EPSILON / 2.0, 2)] {
        let found = find(&row, &[0.0; 4], Ask { number: uniform, ..ask(AskKind::Draw) }, &[], true);
        assert_eq!(found.answer.drawn, token);
    }
}

/// The sums of threads without tokens are rounded in another order than those of the last with some.
#[test]
fn the_end_of_the_unit_interval_draws_a_token_of_the_vocabulary_whatever_is_rounded() {
    for seed in 0..40_u32 {
        let logit = |token: u32| {
            (token.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 8) as f32 / (1 << 21) as f32
        };
        let row: Vec<f32> = (0..1700 + 13 * seed).map(logit).collect();
        let ask = Ask { number: 1.0 - f64::EPSILON / 2.0, ..ask(AskKind::Draw) };
        let drawn = find(&row, &vec![0.0; row.len()], ask, &[], true).answer.drawn;
        assert!(drawn as usize + 20 > row.len() && (drawn as usize) < row.len(), "{drawn} of {}", row.len());
    }
}

#[test]
fn the_two_zeros_are_equally_likely_and_keep_their_signs() {
    let row = [-0.0, 0.0, -0.0];
    let found = find(&row, &[-0.0, 0.0, -0.0], Ask { count: 2, ..ask(AskKind::Top) }, &[], true);
    assert_eq!(format!("{:?}", list(&found, found.answer.count)), "[(0, -0.0), (1, 0.0)]");
}

#[test]
fn a_list_never_leaves_its_room() {
    let found = find(&[0.0; 20], &[0.0; 20], Ask { count: 20, room: 3, ..ask(AskKind::Top) }, &[], true);
    assert_eq!(found.answer.count, 20);
    assert_eq!(&found.lists[..7], [0, 1, 2, 0, 0, 0, 0]);
}

/// A block reads 8,192 logits in a round: what it has added up before it finds a larger one is rescaled.
#[test]
fn norms_are_the_hosts_in_whatever_order_the_logits_come() {
    let ascending: Vec<f32> = (0..20_011).map(|token| token as f32 / 1000.0).collect();
    let descending: Vec<f32> = ascending.iter().rev().copied().collect();
    let late = |value: f32| {
        let mut row = ascending.clone();
        (row[0], row[20_010]) = (-3e38, value);
        row
    };
    for (row, is_finite) in
        [(&ascending, true), (&descending, true), (&late(3e38), true), (&late(f32::NAN), false)]
    {
        let expected = norm(row);
        for kind in [AskKind::Norm, AskKind::Row] {
            for is_staged in [false, true] {
                let found = find(row, &vec![0.0; row.len()], ask(kind), &[], is_staged).answer;
                assert_eq!(found.largest.is_finite(), is_finite);
                if is_finite {
                    assert_eq!(found.largest, expected.largest);
                    assert!((found.log_sum - expected.log_sum).abs() < 1e-6, "{found:?} {expected:?}");
                }
            }
        }
    }
}
