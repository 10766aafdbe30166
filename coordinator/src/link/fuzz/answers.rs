//! Hostile answers against every question, and what comes through against fusion, sampling and the certificate.

use chorus_fuzz::{Encoded, Verdict, any_f32, any_f64, any_number, assert_one_line, fuzz, mutated, within};
use chorus_proto::v1::{self, Norms, RowFormat, answer::Answer as Kind};
use chorus_proto::{put_values, rounded};
use chorus_simd::norm;
use futures::FutureExt as _;
use proptest::prelude::*;
use prost::Message as _;

use super::LONGEST_SENTENCE;
use crate::fusion::certificate::{Contest, Evidence, Places, judge};
use crate::fusion::{Fused, Fusion, Norm, Row, Rule, Scratch, fuse};
use crate::link::answer::Question;
use crate::link::spare_rows::SpareRows;
use crate::plan::{Ask, PlanKind, Positions};
use crate::replica::{Answer, Feed, SessionId};
use crate::sampling::Sampling;

pub(super) const VOCABULARY: usize = 5;
const TOKENS: [u32; 3] = [4, 0, 2];
const HONEST: [f32; VOCABULARY] = [0.5, -1.0, 2.0, 2.0, 0.0];

pub(super) fn asks() -> Vec<Ask> {
    let rows = |positions, format| Ask::Logits { positions, format };
    let top = |positions, k, log_threshold| Ask::Top { positions, k, log_threshold };
    vec![
        Ask::Nothing,
        Ask::Targets,
        rows(Positions::Next, RowFormat::F32),
        rows(Positions::Each, RowFormat::F32),
        rows(Positions::Each, RowFormat::F16),
        rows(Positions::Next, RowFormat::Bf16),
        top(Positions::Next, 2, None),
        top(Positions::Next, 0, Some(0.3_f64.ln())),
        top(Positions::Each, 1, Some(0.2_f64.ln())),
        Ask::Ids([1, 3].into()),
        Ask::Draw { uniform: 0.5 },
    ]
}

pub(super) fn feed(session: SessionId, ask: Ask) -> Feed {
    Feed {
        session,
        step: 1,
        tokens: TOKENS.to_vec(),
        ask,
        plan: PlanKind::Dense,
        snapshot: true,
        timeout: std::time::Duration::from_secs(5),
        traceparent: None,
    }
}

/// What an honest worker of these rows answers, as it travels, with a sealed snapshot.
pub(super) fn answer(session: SessionId, step: u64, ask: Ask) -> impl Strategy<Value = v1::Answer> + Clone {
    let logit = prop_oneof![30 => (-8_i8..8).prop_map(f32::from), 1 => any_f32()];
    let row = prop::collection::vec(logit, VOCABULARY);
    let rows = prop::collection::vec(row, ask.rows(TOKENS.len()).max(1));
    let odd = (any_f64(), any_number(), prop::option::of(0..8_u64));
    (rows, odd).prop_map(move |(rows, (number, id, position))| {
        let snapshot = position.map(|position| v1::Snapshot {
            position,
            model_fingerprint: "model".to_owned(),
            state: vec![7; 8].into(),
            checksum: crc32fast::hash(&[7; 8]),
        });
        let answer = match &ask {
            Ask::Nothing => Kind::Advanced(v1::Advanced {}),
            Ask::Targets => Kind::Targets(v1::Targets { log_probs: vec![number.min(0.0), -1.0, -0.0] }),
            Ask::Logits { format, .. } => Kind::Logits(logits(&rows, *format)),
            Ask::Top { positions, k, log_threshold } => Kind::Top(top(&rows, *positions, *k, *log_threshold)),
            Ask::Ids(ids) => {
                let row = rows.first().cloned().unwrap_or_default();
                let of_ids: Vec<f32> = ids.iter().map(|id| row[*id as usize]).collect();
                Kind::Ids(v1::IdLogits { logits: bytes(&of_ids), norms: Some(norms(&rows)) })
            }
            Ask::Draw { .. } => Kind::Drawn(v1::Drawn { id: id as u32 }),
        };
        v1::Answer { session, step, answer: Some(answer), snapshot }
    })
}

fn bytes(values: &[f32]) -> bytes::Bytes {
    let mut bytes = Vec::new();
    put_values(&mut bytes, values.iter().copied(), RowFormat::F32);
    bytes.into()
}

fn norms(rows: &[Vec<f32>]) -> Norms {
    let mut norms = Norms::default();
    for row in rows {
        let Norm { largest, log_sum } = norm(row);
        norms.push(largest, log_sum);
    }
    norms
}

fn logits(rows: &[Vec<f32>], format: RowFormat) -> v1::Logits {
    let travelling = |row: &Vec<f32>| -> Vec<f32> {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let distance =
            |logit: &f32| if format == RowFormat::F32 { *logit } else { rounded(logit - largest, format) };
        row.iter().map(distance).collect()
    };
    let rows: Vec<Vec<f32>> = rows.iter().map(travelling).collect();
    let mut values = Vec::new();
    rows.iter().for_each(|row| put_values(&mut values, row.iter().copied(), format));
    v1::Logits { values: values.into(), norms: Some(norms(&rows)) }
}

fn top(rows: &[Vec<f32>], positions: Positions, k: u32, log_threshold: Option<f64>) -> v1::TopTokens {
    let (mut counts, mut all, mut logits, mut targets) = (vec![], vec![], vec![], vec![]);
    for (row, token) in rows.iter().zip(TOKENS) {
        let mut ids: Vec<u32> = (0..VOCABULARY as u32).collect();
        ids.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b)));
        let above =
            |id: &&u32| log_threshold.is_some_and(|least| norm(row).log_prob(row[**id as usize]) > least);
        ids.truncate(ids.iter().filter(above).count().max(k as usize));
        ids.sort_unstable();
        counts.push(ids.len() as u32);
        logits.extend(ids.iter().map(|id| row[*id as usize]));
        all.extend(ids);
        if positions == Positions::Each {
            targets.push(row[token as usize]);
        }
    }
    let (logits, target_logits) = (bytes(&logits), bytes(&targets));
    v1::TopTokens { counts, ids: all, logits, norms: Some(norms(rows)), target_logits }
}

/// What came through has the shape that was asked for and nothing in it that was not checked.
pub(super) fn check(ask: &Ask, answer: &Answer) {
    let rows = ask.rows(TOKENS.len());
    match (ask, answer) {
        (Ask::Nothing, Answer::Advanced) => {}
        (Ask::Targets, Answer::Targets(log_probs)) => {
            assert_eq!(log_probs.len(), TOKENS.len());
            assert!(log_probs.iter().all(|log_prob| log_prob.is_finite() && *log_prob <= 0.0));
        }
        (Ask::Logits { .. }, Answer::Rows(answer)) => {
            assert_eq!(answer.len(), rows);
            (0..rows).for_each(|row| check_row(answer.row(row).unwrap()));
        }
        (Ask::Top { k, log_threshold, .. }, Answer::Top(answer)) => {
            assert_eq!(answer.len(), rows);
            for row in 0..rows {
                let top = answer.row(row).unwrap();
                assert!(top.ids.len() >= *k as usize && top.ids.len() == top.logits.len());
                assert!(top.ids.is_sorted_by(|one, other| one < other));
                assert!(top.ids.iter().all(|id| (*id as usize) < VOCABULARY));
                assert!(top.logits.iter().chain(&top.target).all(|logit| *logit <= top.norm.largest));
                check_certificate(&Evidence::new(&top), *log_threshold);
            }
        }
        (Ask::Ids(ids), Answer::Ids { logits, norm }) => {
            assert_eq!(logits.len(), ids.len());
            assert!(norm.is_finite() && logits.iter().all(|logit| *logit <= norm.largest));
        }
        (Ask::Draw { .. }, Answer::Drawn(id)) => assert!((*id as usize) < VOCABULARY),
        other => panic!("{other:?}"),
    }
}

fn check_row(row: Row<'_>) {
    assert_eq!(row.len(), VOCABULARY);
    assert!(row.norm().is_finite() && row.logits().iter().all(f32::is_finite));
    assert_eq!(row.norm().largest, row.logits().iter().fold(f32::MIN, f32::max));
    let honest = Row::new(&HONEST, norm(&HONEST), VOCABULARY).unwrap();
    for rule in Rule::ALL {
        let fusion = Fusion { rule, threshold: 0.2 };
        let mut scratch = Scratch::default();
        match fuse(&fusion, &[(1.0, row), (2.0, honest)], &mut scratch) {
            Ok(Fused::Distribution(mut fused)) => {
                let mass: f64 = fused.log_probs().map(f64::exp).sum();
                assert!((mass - 1.0).abs() < 1e-4, "{rule}: the probabilities sum to {mass}");
                let sampling = Sampling { temperature: 0.7, top_k: 3, top_p: 0.9 };
                assert!((sampling.choose(&mut fused, 0.5) as usize) < VOCABULARY);
            }
            Ok(Fused::Winner(winner)) => {
                assert!(winner.top(VOCABULARY).iter().all(|candidate| (candidate.id as usize) < VOCABULARY));
            }
            Err(error) => assert_one_line(&error.to_string(), LONGEST_SENTENCE),
        }
    }
}

fn check_certificate(evidence: &Evidence, log_threshold: Option<f64>) {
    let ids: Vec<u32> = (0..VOCABULARY as u32).collect();
    let honest = crate::tops::Top {
        ids: &ids,
        logits: &HONEST,
        norm: norm(&HONEST),
        target: None,
        bound: f64::NEG_INFINITY,
    };
    let honest = Evidence::new(&honest);
    for places in [Places::Winner, Places::Leaders(2), Places::Leaders(VOCABULARY)] {
        let contest = Contest { log_threshold, places, vocabulary_size: VOCABULARY };
        let verdict = judge(&contest, &[(1.0, evidence), (0.5, &honest)]).unwrap();
        if let crate::fusion::certificate::Verdict::Settled(leaders) = verdict {
            assert!(!leaders.is_empty() && leaders.iter().all(|leader| (leader.id as usize) < VOCABULARY));
        }
    }
}

#[test]
fn what_is_taken_of_an_answer_is_what_was_asked_for_and_sound() {
    let asks = prop::sample::select(asks());
    let cases = asks.prop_flat_map(|ask| {
        let encoded = answer(1, 1, ask.clone()).prop_map(|answer| answer.encode_to_vec()).boxed();
        (Just(ask), mutated(encoded, &[]))
    });
    fuzz("coordinator: answers", cases, |(ask, Encoded(bytes))| {
        let room = 64 * bytes.len() + 4096;
        let Ok(answer) = within(room, || v1::Answer::decode(bytes::Bytes::from(bytes))) else {
            return Verdict::Refused;
        };
        let question = Question::of(&feed(1, ask.clone()), VOCABULARY as u32, SpareRows::default());
        let read = within(room, || question.read(answer.answer).now_or_never());
        match read.expect("small answers are read at once") {
            Ok(answer) => {
                check(&ask, &answer);
                Verdict::Accepted
            }
            Err(error) => {
                assert_one_line(&error.to_string(), LONGEST_SENTENCE);
                Verdict::Refused
            }
        }
    });
}
