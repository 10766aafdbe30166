//! Every plan against whole rows: the same request, asked both ways, has the same answer.

use chorus_proto::v1::{FusionOptions, GenerateRequest, PredictRequest, RowFormat, ScoreRequest};

use super::*;
use crate::fusion::{Norm, Rule};
use crate::plan::{Ask, Positions};
use crate::replica::Answer;
use crate::rows::Rows;
use crate::testing::scripted_replica::Act;

const STYLES: [Style; 3] = [Style::Noise, Style::Language, Style::Ties];

/// Thresholds under which tokens have many votes, few, and none.
const THRESHOLDS: [f64; 3] = [0.02, 0.1, 0.9];

fn fusing(rule: Rule, threshold: Option<f64>, whole_rows: bool) -> Option<FusionOptions> {
    let rule = chorus_proto::v1::Rule::from(rule).into();
    Some(FusionOptions { rule, threshold, whole_rows, ..FusionOptions::default() })
}

/// A vote under each threshold, and the weighted average.
fn contests() -> impl Iterator<Item = (Rule, Option<f64>)> {
    let votes = THRESHOLDS.into_iter().map(|threshold| (Rule::ThresholdVote, Some(threshold)));
    votes.chain([(Rule::WeightedAverage, None)])
}

fn generating(rule: Rule, threshold: Option<f64>, whole_rows: bool) -> GenerateRequest {
    let greedy = SamplingOptions { temperature: Some(0.0), seed: Some(1), ..SamplingOptions::default() };
    GenerateRequest {
        prompt: ids(&[7, 250, 3]),
        max_tokens: Some(25),
        sampling: (rule == Rule::WeightedAverage).then_some(greedy),
        fusion: fusing(rule, threshold, whole_rows),
        ..GenerateRequest::default()
    }
}

/// Whether any member was asked for anything that is a whole row.
fn asked_for_rows(stage: &Stage) -> bool {
    let asks = stage.members.iter().flat_map(|member| member.asks());
    asks.into_iter().any(|ask| matches!(ask, Ask::Logits { .. }))
}

fn has_ids(stage: &Stage) -> bool {
    let asks = stage.members.iter().flat_map(|member| member.asks());
    asks.into_iter().any(|ask| matches!(ask, Ask::Ids(_)))
}

#[tokio::test]
async fn greedy_and_voted_texts_are_those_of_whole_rows() {
    for style in STYLES {
        for (rule, threshold) in contests() {
            let stage = Stage::with(style, &large_vocabulary(), "").await;
            let replies = stage.generate(generating(rule, threshold, false)).await.unwrap();
            if style == Style::Language {
                assert!(!asked_for_rows(&stage), "{rule} {threshold:?}");
            }
            let reference = stage.generate(generating(rule, threshold, true)).await.unwrap();
            assert!(asked_for_rows(&stage));
            assert_eq!(replies, reference, "{style:?} {rule} {threshold:?}");
        }
    }
}

#[tokio::test]
async fn lists_that_prove_nothing_step_after_step_give_way_to_rows() {
    let steps = 25;
    for style in [Style::Noise, Style::Language] {
        let stage = Stage::with(style, &large_vocabulary(), "").await;
        stage.generate(generating(Rule::WeightedAverage, None, false)).await.unwrap();
        for member in &stage.members {
            let asks = member.asks();
            let rows = asks.iter().filter(|ask| matches!(ask, Ask::Logits { .. })).count();
            let lists = asks.iter().filter(|ask| matches!(ask, Ask::Top { k: 16, .. })).count();
            // One question for each step, whichever it begins with; where lists are in vain, most begin with rows.
            match style {
                Style::Noise => assert!(lists < steps / 2 && lists + rows >= steps, "{lists} and {rows}"),
                _ => assert_eq!((lists, rows), (steps, 0)),
            }
        }
    }
}

#[tokio::test]
async fn predictions_are_those_of_whole_rows_to_the_bit() {
    let mut followed_up = false;
    for style in STYLES {
        for (rule, threshold) in contests() {
            for top_n in [1, 7, 40] {
                let stage = Stage::with(style, &large_vocabulary(), "").await;
                let request = |whole_rows| PredictRequest {
                    prefix: ids(&[1, 2, 3, 4, 5, top_n]),
                    top_n: Some(top_n),
                    fusion: fusing(rule, threshold, whole_rows),
                };
                let reply = stage.predict(request(false)).await.unwrap();
                followed_up |= has_ids(&stage);
                let reference = stage.predict(request(true)).await.unwrap();
                assert_eq!(reply, reference, "{style:?} {rule} {threshold:?} {top_n}");
            }
        }
    }
    assert!(followed_up, "some need a second question");
}

#[tokio::test]
async fn voted_scores_are_those_of_whole_rows() {
    let mut read_again = false;
    for style in STYLES {
        for threshold in THRESHOLDS {
            let stage = Stage::with(style, &large_vocabulary(), "").await;
            // What the ensemble would have said itself, so that tokens win, and a tail of others.
            let mut tokens = vec![7, 250, 3];
            let replies =
                stage.generate(generating(Rule::ThresholdVote, Some(threshold), true)).await.unwrap();
            tokens.extend(super::tokens(&replies));
            tokens.extend([5, 5, 299, 0]);
            let before = stage.members[0].histories().len();
            let request = |whole_rows| ScoreRequest {
                input: ids(&tokens),
                fusion: fusing(Rule::ThresholdVote, Some(threshold), whole_rows),
                per_token: true,
            };
            let reply = stage.score(request(false)).await.unwrap();
            read_again |= stage.members[0].histories().len() > before + 1;
            assert_eq!(reply, stage.score(request(true)).await.unwrap(), "{style:?} {threshold}");
            assert!(reply.votes.unwrap().winners > 20, "{style:?} {threshold}");
        }
    }
    assert!(read_again, "some positions are open after one reading");
}

fn drawing(seed: u64, whole_rows: bool) -> GenerateRequest {
    GenerateRequest {
        max_tokens: Some(40),
        log_probs: false,
        fusion: fusing(Rule::WeightedAverage, None, whole_rows),
        ..request(&[7, 3], 40, seed)
    }
}

#[tokio::test]
async fn a_seed_has_one_text_whatever_crosses_the_wire() {
    let stage = Stage::with(Style::Language, &large_vocabulary(), "").await;
    let drawn = stage.generate(drawing(5, false)).await.unwrap();
    assert!(!asked_for_rows(&stage));
    let draws: Vec<usize> = stage
        .members
        .iter()
        .map(|member| {
            let asks = member.asks();
            let draws = asks.iter().filter(|ask| matches!(ask, Ask::Draw { .. })).count();
            let nothing = asks.iter().filter(|ask| **ask == Ask::Nothing).count();
            assert_eq!(draws + nothing, asks.len());
            draws
        })
        .collect();
    assert_eq!(
        draws.iter().sum::<usize>(),
        40,
        "one output layer's row for each token, not three: {draws:?}"
    );
    assert!(draws.iter().all(|draws| *draws > 0), "{draws:?}");

    assert_eq!(stage.generate(drawing(5, true)).await.unwrap(), drawn);
    let with_log_probs = GenerateRequest { log_probs: true, ..drawing(5, false) };
    assert_eq!(tokens(&stage.generate(with_log_probs).await.unwrap()), tokens(&drawn));
    assert_ne!(stage.generate(drawing(6, false)).await.unwrap(), drawn);
    let mut prefix = vec![7, 3];
    for (index, token) in (0..).zip(tokens(&drawn)) {
        assert_eq!(token, stage.drawn(&prefix, 5, index));
        prefix.push(token);
    }
}

#[tokio::test]
async fn drawn_tokens_have_the_frequencies_of_the_mixture() {
    let stage = Stage::with(Style::Noise, &vocabulary(), "").await;
    let mixture: Vec<f64> = stage.fused(&NAMES.map(str::to_owned), &[7, 3], |fused| match fused {
        Fused::Distribution(mixture) => mixture.log_probs().collect(),
        Fused::Winner(_) => panic!("the weighted average is a distribution"),
    });
    let draws = 4000_u32;
    let mut counts = [0_u32; 8];
    for seed in 0..draws {
        let request = GenerateRequest { max_tokens: Some(1), ..drawing(seed.into(), false) };
        counts[tokens(&stage.generate(request).await.unwrap())[0] as usize] += 1;
    }
    let term = |(count, log_prob): (&u32, &f64)| {
        let expected = f64::from(draws) * log_prob.exp();
        (f64::from(*count) - expected).powi(2) / expected
    };
    let chi_squared: f64 = counts.iter().zip(&mixture).map(term).sum();
    // The 99.9th percentile with seven degrees of freedom.
    assert!(chi_squared < 24.3, "{counts:?}: {chi_squared}");
}

#[tokio::test]
async fn a_member_that_is_lost_while_it_draws_leaves_the_draw_to_the_others() {
    let stage = Stage::with(Style::Language, &large_vocabulary(), "").await;
    let undisturbed = tokens(&stage.generate(drawing(5, false)).await.unwrap());
    // Whoever draws the third token dies of it: four tokens are read then.
    let drawing_third = drawing_member(5, 2, WEIGHTS.into_iter().enumerate()).unwrap();
    stage.members[drawing_third].follow(|read| if read == 4 { Act::Die } else { Act::Answer });
    let replies = stage.generate(drawing(5, false)).await.unwrap();
    assert_eq!(tokens(&replies)[..2], undisturbed[..2]);
    let survivors: Vec<usize> = (0..3).filter(|member| *member != drawing_third).collect();
    let mut prefix = vec![7, 3];
    for (index, token) in (0..).zip(tokens(&replies)) {
        let members: &[usize] = if index < 2 { &[0, 1, 2] } else { &survivors };
        assert_eq!(token, stage.drawn_by(members, &prefix, 5, index), "token {index}");
        prefix.push(token);
    }
    let missing = missing(&replies);
    assert_eq!(missing.iter().position(|missing| !missing.is_empty()), Some(2));
    assert!(missing[2..].iter().all(|missing| missing == &[NAMES[drawing_third]]));
}

/// A member that answers the first question of a step and dies of the second.
fn die_of_the_second_question(member: &Arc<ScriptedReplica>, at: usize) {
    let mut asked = 0;
    member.follow(move |read| {
        asked += usize::from(read == at);
        if asked == 2 { Act::Die } else { Act::Answer }
    });
}

#[tokio::test]
async fn a_member_lost_between_two_questions_is_out_of_the_step() {
    let stage = Stage::with(Style::Noise, &large_vocabulary(), "").await;
    die_of_the_second_question(&stage.members[1], 3);
    let request = |whole_rows| PredictRequest {
        prefix: ids(&[9, 8, 7]),
        top_n: Some(12),
        fusion: fusing(Rule::WeightedAverage, None, whole_rows),
    };
    let reply = stage.predict(request(false)).await.unwrap();
    let participation = reply.participation.as_ref().unwrap();
    assert_eq!(participation.participants, ["alto", "cello"]);
    assert_eq!(participation.missing[0].reason, "killed");
    assert_eq!(reply, stage.predict(request(true)).await.unwrap(), "it is dead for both");

    let stage = Stage::with(Style::Ties, &large_vocabulary(), "").await;
    die_of_the_second_question(&stage.members[2], 5);
    let replies = stage.generate(generating(Rule::WeightedAverage, None, false)).await.unwrap();
    let missing = missing(&replies);
    assert_eq!(missing.iter().position(|missing| missing == &["cello"]), Some(2), "{missing:?}");
    assert_eq!(tokens(&replies).len(), 25);
}

#[tokio::test]
async fn members_that_have_forgotten_the_session_between_two_questions_read_it_again() {
    let stage = Stage::with(Style::Noise, &large_vocabulary(), "").await;
    for member in &stage.members {
        let mut asked = 0;
        member.follow(move |read| {
            asked += usize::from(read == 3);
            if asked == 2 { Act::Fail(ReplicaError::UnknownSession) } else { Act::Answer }
        });
    }
    let request = |whole_rows| PredictRequest {
        prefix: ids(&[9, 8, 7]),
        top_n: Some(12),
        fusion: fusing(Rule::WeightedAverage, None, whole_rows),
    };
    let reply = stage.predict(request(false)).await.unwrap();
    assert!(stage.members[0].histories().len() > 1, "it was asked twice, and read the prefix again");
    assert_eq!(reply, stage.predict(request(true)).await.unwrap());
}

#[tokio::test]
async fn a_member_lost_while_open_positions_are_settled_leaves_no_trace() {
    let stage = Stage::with(Style::Ties, &large_vocabulary(), "").await;
    let replies = stage.generate(generating(Rule::ThresholdVote, Some(0.9), true)).await.unwrap();
    let tokens = [vec![7, 250, 3], tokens(&replies)].concat();
    let request = |whole_rows| ScoreRequest {
        input: ids(&tokens),
        fusion: fusing(Rule::ThresholdVote, Some(0.9), whole_rows),
        per_token: true,
    };
    // The text is read once; the second reading, for what equal tokens left open, is not answered to its end.
    let mut readings = 0;
    stage.members[1].follow(move |read| {
        readings += usize::from(read <= 4);
        if readings > 2 { Act::Die } else { Act::Answer }
    });
    let reply = stage.score(request(false)).await.unwrap();
    assert_eq!(reply.participation.as_ref().unwrap().participants, ["alto", "cello"]);
    let reference = stage.score(request(true)).await.unwrap();
    assert_eq!(reply.token_scores, reference.token_scores);
    assert_eq!(reply.members, reference.members);
}

#[tokio::test]
async fn what_is_asked_follows_from_the_request() {
    let each =
        |k, threshold: f64| Ask::Top { positions: Positions::Each, k, log_threshold: Some(threshold.ln()) };
    let stage = Stage::with(Style::Language, &large_vocabulary(), "").await;
    let request = |rule, threshold, row_format: RowFormat| {
        let fusion = fusing(rule, threshold, false).unwrap();
        let fusion = Some(FusionOptions { row_format: row_format.into(), ..fusion });
        ScoreRequest { input: ids(&[1, 2]), fusion, per_token: false }
    };
    for (rule, threshold, expected) in [
        (Rule::WeightedAverage, None, Ask::Targets),
        (Rule::ThresholdVote, Some(0.1), each(8, 0.1)),
        (Rule::LogLinear, None, crate::plan::Plan::reference().each()),
    ] {
        let before = stage.members[0].asks().len();
        stage.score(request(rule, threshold, RowFormat::F32)).await.unwrap();
        assert_eq!(stage.members[0].asks()[before], expected, "{rule}");
    }
}

/// The same rows with a norm by which their probabilities sum to about a half, or two.
fn misjudge(answer: Answer) -> Answer {
    let Answer::Rows(rows) = answer else { return answer };
    let parts: Vec<_> = (0..rows.len()).map(|index| rows.row(index).unwrap()).collect();
    let logits: Vec<f32> = parts.iter().flat_map(|row| row.logits().iter()).collect();
    // Within what some row of eight tokens has.
    let off = |log_sum| if log_sum > 1.0 { -0.6 } else { 0.6 };
    let lie = |norm: Norm| Norm { log_sum: norm.log_sum + off(norm.log_sum), ..norm };
    let norms = parts.iter().map(|row| lie(row.norm())).collect();
    Answer::Rows(Rows::of_values(&logits, norms, parts[0].len()).unwrap())
}

#[tokio::test]
async fn rows_with_a_wrong_norm_put_a_member_out_of_the_step() {
    for rule in Rule::ALL {
        let stage = Stage::new(&format!("[fusion]\nrule = '{rule}'")).await;
        stage.members[1].follow(|read| if read == 3 { Act::Lie(misjudge) } else { Act::Answer });
        let log_probs = rule != Rule::ThresholdVote;
        let sampling = log_probs.then(|| request(&[], 1, 4).sampling).flatten();
        let request = GenerateRequest { sampling, log_probs, ..request(&[0, 0], 5, 4) };
        let replies = stage.generate(request).await.unwrap();
        assert_eq!(missing(&replies)[1], ["bass"], "{rule}");
        assert_eq!(stage.members[1].discredited(), 1);
        let reason = &participation(&replies[1]).missing[0].reason;
        assert!(reason.contains("its probabilities sum to"), "{reason}");
        stage.assert_fused_in_process(&[0, 0], &replies);
    }
}

#[tokio::test]
async fn a_score_whose_rows_have_a_wrong_norm_is_that_of_the_others() {
    let stage = Stage::new("[fusion]\nrule = 'log_linear'").await;
    let request = || ScoreRequest { input: ids(&[1, 7, 0, 3, 3, 2]), fusion: None, per_token: true };
    stage.members[0].follow(|read| if read == 6 { Act::Lie(misjudge) } else { Act::Answer });
    let reply = stage.score(request()).await.unwrap();
    assert_eq!(reply.participation.as_ref().unwrap().participants, ["bass", "cello"]);
    stage.members[0].die();
    let without = stage.score(request()).await.unwrap();
    assert_eq!((reply.log_prob, reply.members), (without.log_prob, without.members));
}

/// Says of every token that was asked for that it is as likely as the likeliest.
fn shout(answer: Answer) -> Answer {
    match answer {
        Answer::Ids { logits, norm } => Answer::Ids { logits: vec![norm.largest; logits.len()], norm },
        other => other,
    }
}

#[tokio::test]
async fn a_member_that_contradicts_itself_is_out_of_the_step() {
    let stage = Stage::with(Style::Noise, &large_vocabulary(), "").await;
    stage.members[2].follow(|_| Act::Lie(shout));
    let request = |whole_rows| PredictRequest {
        prefix: ids(&[9, 8, 7]),
        top_n: Some(12),
        fusion: fusing(Rule::WeightedAverage, None, whole_rows),
    };
    let reply = stage.predict(request(false)).await.unwrap();
    assert_eq!(stage.members[2].discredited(), 1);
    let missing = &reply.participation.as_ref().unwrap().missing[0];
    assert!(missing.reason.contains("contradicts what it said before"), "{}", missing.reason);
    stage.members[2].die();
    let reference = stage.predict(request(true)).await.unwrap();
    assert_eq!((reply.candidates, reply.members), (reference.candidates, reference.members));
}
