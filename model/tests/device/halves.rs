//! Calls in two halves: launched, and taken in later, whatever is launched between.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;

/// Rows of a call: tokens and what is wanted.
type Requests = Vec<(Vec<u32>, Want)>;

/// A call of rows that stand one after the other among the states, and whether the oldest answers are taken in after it.
#[derive(Debug, Clone)]
struct Call {
    first: usize,
    rows: Vec<(usize, usize)>,
    collects: bool,
}

const STATES: usize = 7;

fn call() -> impl Strategy<Value = Call> {
    let rows = prop::collection::vec((0_usize..5, 0_usize..3), 1..=STATES);
    (0..STATES, rows, any::<bool>()).prop_map(|(first, mut rows, collects)| {
        rows.truncate(STATES - first);
        Call { first, rows, collects }
    })
}

/// Those that steps are recorded with have no ids.
fn reductions(rows: usize, seed: usize, recorded: bool) -> Vec<Reduction<'static>> {
    let kinds = [
        Reduction::Draw { uniform: 0.3 },
        Reduction::Top { k: 2, log_threshold: Some(-1.5) },
        Reduction::Target,
        Reduction::Row,
        Reduction::Norm,
        Reduction::Ids(&[0, 2]),
    ];
    let kinds = &kinds[..if recorded { 5 } else { 6 }];
    (0..rows).map(|row| kinds[(row + seed) % kinds.len()]).collect()
}

fn submit(
    model: &LanguageModel,
    states: &mut [State],
    requests: &[(Vec<u32>, Want)],
    reductions: &[Reduction<'_>],
) -> Result<bool, ForwardError> {
    let rows = states.iter_mut().zip(requests);
    let mut rows: Vec<Row<'_>> =
        rows.map(|(state, (tokens, want))| Row { state, tokens, want: *want }).collect();
    model.submit(&mut rows, reductions)
}

fn collect(model: &LanguageModel, requests: &[(Vec<u32>, Want)]) -> Vec<Told> {
    let mut found = Vec::new();
    model.collect(&mut |answer| found.push(told(answer))).unwrap();
    in_order(found, requests)
}

fn same(expected: &[Told], found: &[Told]) {
    let names = |told: &[Told]| -> Vec<_> {
        told.iter().map(|(row, offset, what, _)| (*row, *offset, what.clone())).collect()
    };
    assert_eq!(names(expected), names(found));
    for ((.., expected), (.., found)) in expected.iter().zip(found) {
        assert!(difference(expected, found) <= 1e-5, "{expected:?}, {found:?}");
    }
}

/// Makes the calls of one model in halves, two at a time where that goes, and of the other as a whole. How many went in halves.
fn in_halves_and_as_a_whole(
    halves: &LanguageModel,
    whole: &LanguageModel,
    calls: &[Call],
    (seed, recorded): (usize, bool),
) -> usize {
    let (mut states, mut others) = (states(halves, STATES), states(whole, STATES));
    let mut under_way: VecDeque<(Requests, Vec<Told>)> = VecDeque::new();
    let mut submitted = 0;
    for (number, call) in calls.iter().enumerate() {
        let request = |(row, &(length, want)): (usize, &(usize, usize))| {
            (tokens(seed + row + 10 * number, length, halves.config().vocab_size), WANTS[want])
        };
        let requests: Requests = call.rows.iter().enumerate().map(request).collect();
        let reductions = reductions(requests.len(), seed + number, recorded);
        let range = call.first..call.first + requests.len();
        let expected = answers(whole, &mut others[range.clone()], &requests, &reductions);
        if submit(halves, &mut states[range.clone()], &requests, &reductions).unwrap() {
            submitted += 1;
            under_way.push_back((requests, expected));
        } else {
            under_way.drain(..).for_each(|(requests, expected)| same(&expected, &collect(halves, &requests)));
            same(&expected, &answers(halves, &mut states[range], &requests, &reductions));
        }
        if call.collects
            && let Some((requests, expected)) = under_way.pop_front()
        {
            halves.wait().unwrap();
            same(&expected, &collect(halves, &requests));
        }
    }
    under_way.drain(..).for_each(|(requests, expected)| same(&expected, &collect(halves, &requests)));
    for (state, other) in states.iter().zip(&others) {
        let (state, other) = (halves.values(state).unwrap(), whole.values(other).unwrap());
        assert!(difference(&state, &other) <= 1e-5);
    }
    submitted
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// A call may go on from the states of the one before, whose answers are not there yet.
    #[test]
    fn calls_in_halves_find_what_whole_ones_do(
        calls in prop::collection::vec(call(), 1..12),
        (most_tokens, logits) in prop::sample::select(vec![(9, 70), (40, 150), (256, 1 << 16)]),
        seed in 0_usize..1_000_000,
    ) {
        let capacity = Capacity { states: 24, tokens: most_tokens, logits };
        let [halves, whole] = [(); 2].map(|()| device(config(), Precision::F32, capacity));
        let submitted = in_halves_and_as_a_whole(&halves, &whole, &calls, (seed, false));
        prop_assert!(submitted > 0 || most_tokens < 256, "with room for all of them, some go in halves");
    }
}

/// From the third time on steps are graphs, one for each side of the host's memory. They go on from each other's states.
#[test]
fn steps_in_halves_that_are_made_again_and_again_find_what_whole_ones_do() {
    let [halves, whole] = [(); 2].map(|()| device(config(), Precision::F32, LARGE));
    let call = |step: usize| Call { first: step / 12 * 2, rows: vec![(1, 0); 3], collects: step > 0 };
    let calls: Vec<Call> = (0..24).map(call).collect();
    assert_eq!(in_halves_and_as_a_whole(&halves, &whole, &calls, (0, true)), calls.len());
}

#[test]
fn what_can_t_be_cut_in_two_has_not_happened() {
    let device = device(config(), Precision::F32, SMALL);
    let mut states = states(&device, 2);
    let before = states.clone();
    let reductions = [Reduction::Draw { uniform: 0.5 }, Reduction::Target];
    let requests = |length| [(tokens(0, length, 5), Want::Next), (tokens(1, length, 5), Want::Each)];
    let long = requests(SMALL.tokens);
    assert!(!submit(&device, &mut states, &long, &reductions).unwrap(), "two blocks");
    assert!(states == before);
    let many = [(tokens(0, 30, 5), Want::Each)];
    let wanted = SMALL.logits / config().vocab_size;
    assert!(wanted < 30 && !submit(&device, &mut states[..1], &many, &reductions[1..]).unwrap(), "two parts");
    assert!(states == before);
    let short = requests(1);
    let requests: Vec<_> = short.to_vec();
    assert!(submit(&device, &mut states, &requests, &reductions).unwrap());
    assert!(submit(&device, &mut states, &requests, &reductions).unwrap());
    let after = states.clone();
    assert!(!submit(&device, &mut states, &requests, &reductions).unwrap(), "two are under way");
    assert!(states == after && after != before);
    let mut state = before[0].clone();
    let row = &mut [Row { state: &mut state, tokens: &[1], want: Want::Next }];
    let error = device.answer(row, &reductions[..1], &mut Room::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, ForwardError::UnderWay), "{error}");
    assert!(state == before[0]);
    assert_eq!(collect(&device, &requests).len(), 2);
    assert_eq!(collect(&device, &requests).len(), 2);
    let error = device.collect(&mut |_| {}).unwrap_err();
    assert!(matches!(error, ForwardError::NothingSubmitted), "{error}");
    device.wait().unwrap();
}

#[test]
fn mistakes_in_a_call_are_told_before_it_is_under_way() {
    let device = device(config(), Precision::F32, SMALL);
    let mut states = states(&device, 1);
    let unknown = [(vec![1000], Want::Next)];
    let error = submit(&device, &mut states, &unknown, &[Reduction::Norm]).unwrap_err();
    assert!(matches!(error, ForwardError::TokenOutOfVocabulary { row: 0, token: 1000, .. }), "{error}");
    let known = [(vec![1], Want::Next)];
    let error = submit(&device, &mut states, &known, &[Reduction::Ids(&[1000])]).unwrap_err();
    assert!(matches!(error, ForwardError::TokenOutOfVocabulary { .. }), "{error}");
    let mut foreign = vec![model(config()).fresh_state().unwrap()];
    let error = submit(&device, &mut foreign, &known, &[Reduction::Norm]).unwrap_err();
    assert!(matches!(error, ForwardError::ForeignState), "{error}");
    assert!(matches!(device.collect(&mut |_| {}), Err(ForwardError::NothingSubmitted)));
}

/// Who takes answers in may break off, or never come.
#[test]
fn answers_that_nobody_takes_in_harm_no_others() {
    let [halves, whole] = [(); 2].map(|()| device(config(), Precision::F32, LARGE));
    let requests = vec![(vec![1], Want::Next), (vec![2], Want::Next)];
    let reductions = [Reduction::Row, Reduction::Draw { uniform: 0.5 }];
    let (mut states, mut others) = (states(&halves, 2), states(&whole, 2));
    for _ in 0..3 {
        let expected = answers(&whole, &mut others, &requests, &reductions);
        assert!(submit(&halves, &mut states, &requests, &reductions).unwrap());
        let broken = catch_unwind(AssertUnwindSafe(|| halves.collect(&mut |_| panic!("scripted panic"))));
        assert!(broken.is_err());
        let again = answers(&whole, &mut others, &requests, &reductions);
        assert_ne!(expected, again);
        assert!(submit(&halves, &mut states, &requests, &reductions).unwrap());
        same(&again, &collect(&halves, &requests));
    }
    assert!(submit(&halves, &mut states, &requests, &reductions).unwrap());
    // A state is that after the call, whoever asks.
    answers(&whole, &mut others, &requests, &reductions);
    let (own, other) = (halves.values(&states[0]).unwrap(), whole.values(&others[0]).unwrap());
    assert!(difference(&own, &other) <= 1e-5);
    drop(halves);
}

/// What is read by a call under way is written by nobody before, though its place is free for others.
#[test]
fn a_state_may_come_and_go_while_a_call_is_under_way() {
    let [halves, whole] = [(); 2].map(|()| device(config(), Precision::F32, LARGE));
    let requests = vec![(vec![1], Want::Next)];
    let (mut own, mut other) = (states(&halves, 1), states(&whole, 1));
    let numbers = whole.values(&states(&whole, 2)[1]).unwrap().into_owned();
    for _ in 0..3 {
        assert!(submit(&halves, &mut own, &requests, &[Reduction::Row]).unwrap());
        // In the place that the call reads.
        let restored = halves.restore(&numbers).unwrap();
        let mut forks = [own[0].clone(), own[0].clone()];
        let both = vec![(vec![2], Want::Next), (vec![3], Want::Next)];
        assert!(submit(&halves, &mut forks, &both, &[Reduction::Row; 2]).unwrap());
        let expected = answers(&whole, &mut other, &requests, &[Reduction::Row]);
        same(&expected, &collect(&halves, &requests));
        let mut others = [other[0].clone(), other[0].clone()];
        same(&answers(&whole, &mut others, &both, &[Reduction::Row; 2]), &collect(&halves, &both));
        assert!(difference(&halves.values(&restored).unwrap(), &numbers) <= 1e-6);
    }
}

#[test]
fn who_breaks_off_harms_no_call_that_is_under_way() {
    let [halves, whole] = [(); 2].map(|()| device(config(), Precision::F32, LARGE));
    let requests = vec![(vec![1], Want::Next), (vec![2], Want::Next)];
    let reductions = [Reduction::Row, Reduction::Draw { uniform: 0.5 }];
    let (mut states, mut others) = (states(&halves, 2), states(&whole, 2));
    let expected: Vec<_> = (0..3).map(|_| answers(&whole, &mut others, &requests, &reductions)).collect();
    assert!(submit(&halves, &mut states, &requests, &reductions).unwrap());
    assert!(submit(&halves, &mut states, &requests, &reductions).unwrap());
    let broken = catch_unwind(AssertUnwindSafe(|| halves.collect(&mut |_| panic!("scripted panic"))));
    assert!(broken.is_err());
    assert!(submit(&halves, &mut states, &requests, &reductions).unwrap());
    same(&expected[1], &collect(&halves, &requests));
    same(&expected[2], &collect(&halves, &requests));
}

#[test]
fn without_a_place_for_a_state_nothing_happens_to_what_is_under_way() {
    let device = device(config(), Precision::F32, Capacity { states: 1, ..SMALL });
    let request = vec![(vec![3], Want::Next)];
    let fresh = device.fresh_state().unwrap();
    let mut state = vec![fresh.clone()];
    assert!(submit(&device, &mut state, &request, &[Reduction::Norm]).unwrap());
    let kept: Vec<State> =
        std::iter::from_fn(|| device.restore(&device.values(&fresh).unwrap()).map(Some).unwrap_or_default())
            .collect();
    assert!(!kept.is_empty());
    let before = state.clone();
    let error = submit(&device, &mut state, &request, &[Reduction::Norm]).unwrap_err();
    assert!(matches!(error, ForwardError::NoSlot { .. }) && state == before, "{error}");
    let found = collect(&device, &request);
    drop(kept);
    let mut again = vec![fresh];
    same(&answers(&device, &mut again, &request, &[Reduction::Norm]), &found);
}

/// Whole rows that take their time to arrive, beside steps that take theirs.
#[test]
#[ignore = "takes a device"]
fn large_calls_in_halves_find_what_whole_ones_do() {
    let config = Config {
        vocab_size: 33_278,
        embedding_size: Some(650),
        hidden_size: 650,
        start: Start::ZeroState,
        ..config()
    };
    let (rows, rounds) = if target().is_cpu() { (8, 2) } else { (96, 200) };
    let capacity = Capacity { states: 300, ..Capacity::default() };
    let on_device = || LanguageModel::on_device(tame(config.clone()), &target(), Precision::F32, capacity);
    let (halves, whole) = (on_device().unwrap(), on_device().unwrap());
    let (mut own, mut others) = (states(&halves, rows), states(&whole, rows));
    let reductions = vec![Reduction::Row; rows];
    let mut under_way: VecDeque<(Requests, Vec<Told>)> = VecDeque::new();
    for round in 0..rounds {
        let request = |row| (tokens(row + 1000 * round, 1, config.vocab_size), Want::Next);
        let requests: Requests = (0..rows).map(request).collect();
        assert!(submit(&halves, &mut own, &requests, &reductions).unwrap());
        let expected = answers(&whole, &mut others, &requests, &reductions);
        under_way.push_back((requests, expected));
        if under_way.len() == 2
            && let Some((requests, expected)) = under_way.pop_front()
        {
            same(&expected, &collect(&halves, &requests));
        }
    }
    under_way.drain(..).for_each(|(requests, expected)| same(&expected, &collect(&halves, &requests)));
}

#[test]
fn the_cpu_has_no_halves() {
    let cpu = model(config());
    let mut states = vec![cpu.fresh_state().unwrap()];
    let before = states.clone();
    assert!(!submit(&cpu, &mut states, &[(vec![1], Want::Next)], &[Reduction::Norm]).unwrap());
    assert!(states == before);
    cpu.wait().unwrap();
    assert!(matches!(cpu.collect(&mut |_| {}), Err(ForwardError::NothingSubmitted)));
}
