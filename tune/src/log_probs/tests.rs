//! What the matrix of log-probabilities refuses, how it is cut, and what mixtures of it are.

use proptest::prelude::*;

use super::*;
use crate::simplex::WeightsError;

const ZERO: f64 = f64::NEG_INFINITY;

fn names(count: usize) -> Vec<String> {
    ["alto", "bass", "tenor"].into_iter().take(count).map(str::to_owned).collect()
}

fn matrix<const M: usize>(rows: &[[f64; M]]) -> LogProbs {
    LogProbs::new(names(M), rows).unwrap()
}

fn refused(members: usize, rows: &[&[f64]]) -> String {
    LogProbs::new(names(members), rows).unwrap_err().to_string()
}

#[test]
fn what_nothing_can_be_learned_from_is_refused() {
    assert_eq!(refused(0, &[&[]]), "there are no members; allowed: at least one");
    assert_eq!(refused(2, &[]), "there are no tokens; allowed: log-probabilities of at least one token");
    assert_eq!(
        refused(2, &[&[-1.0, -2.0], &[-1.0]]),
        "token 1 has 1 log-probabilities; allowed: one for each of the 2 members"
    );
    assert_eq!(
        refused(2, &[&[-1.0, f64::NAN]]),
        "member \"bass\" gives token 0 the log-probability NaN; allowed: a number of at most 0, or -inf"
    );
    assert_eq!(
        refused(2, &[&[-1.0, -1.0], &[1e-8, -1.0]]),
        "member \"alto\" gives token 1 the log-probability 0.00000001; allowed: a number of at most 0, or -inf"
    );
    assert_eq!(
        refused(2, &[&[-1.0, ZERO], &[ZERO, ZERO]]),
        "token 1 has probability zero under alto, bass; allowed: at least one member that gives it more"
    );
    let twice = LogProbs::new(vec!["alto".into(), "alto".into()], [[-1.0, -1.0]]).unwrap_err();
    assert_eq!(twice.to_string(), "two members are called \"alto\"; allowed: a name for each member");
    assert!(LogProbs::new(names(1), [[f64::INFINITY]]).is_err());
}

#[test]
fn what_rounding_puts_above_zero_is_one() {
    assert_eq!(matrix(&[[5e-10]]).column(0), [0.0]);
}

#[test]
fn impossible_tokens_are_left_out_where_asked_and_reported() {
    let rows = [[-1.0, ZERO], [ZERO, ZERO], [-3.0, -4.0], [ZERO, ZERO]];
    let (kept, left_out) = LogProbs::without_impossible_tokens(names(2), rows).unwrap();
    assert_eq!(left_out, [1, 3]);
    assert_eq!((kept.column(0), kept.column(1)), (&[-1.0, -3.0][..], &[ZERO, -4.0][..]));
    let (kept, left_out) = kept.possible_for_every_member().unwrap();
    assert_eq!((kept.column(0), left_out), (&[-3.0][..], vec![0]));
    let nothing = LogProbs::without_impossible_tokens(names(2), [[ZERO, ZERO]]).unwrap_err();
    assert_eq!(nothing, LogProbsError::NoTokens);
}

#[test]
fn members_are_selected_in_the_order_asked_for() {
    let all = matrix(&[[-1.0, -2.0, ZERO], [-4.0, -5.0, -6.0]]);
    let some = all.select_members(&[2, 0]).unwrap();
    assert_eq!(some.members(), ["tenor", "alto"]);
    assert_eq!((some.column(0), some.column(1)), (&[ZERO, -6.0][..], &[-1.0, -4.0][..]));
    assert_eq!(all.select_members(&[]).unwrap_err(), LogProbsError::NoMembers);
    for wrong in [[0, 3], [1, 1]] {
        let error = all.select_members(&wrong).unwrap_err().to_string();
        assert_eq!(error, format!("there is no member {}; allowed: 0 to 2, each once", wrong[1]));
    }
    let error = all.select_members(&[2]).unwrap_err();
    assert_eq!(error, LogProbsError::Impossible { token: 0, members: vec!["tenor".into()] });
}

#[test]
fn tokens_are_cut_and_left_out() {
    let all = matrix(&[[-1.0], [-2.0], [-3.0], [-4.0], [-5.0]]);
    let part = all.select_tokens(1..4).unwrap();
    assert_eq!(part.column(0), [-2.0, -3.0, -4.0]);
    // Parts of parts.
    assert_eq!(part.select_tokens(1..2).unwrap().column(0), [-3.0]);
    assert_eq!(part.without_tokens(0..1).unwrap().column(0), [-3.0, -4.0]);
    assert_eq!(part.without_tokens(1..2).unwrap().column(0), [-2.0, -4.0]);
    assert_eq!(part.without_tokens(2..3).unwrap().column(0), [-2.0, -3.0]);
    assert_eq!(part.without_tokens(1..1).unwrap().column(0), part.column(0));
    assert_eq!(part.without_tokens(0..3).unwrap_err(), LogProbsError::NoTokens);
    assert_eq!(part.select_tokens(1..1).unwrap_err(), LogProbsError::NoTokens);
    let error = part.select_tokens(1..4).unwrap_err().to_string();
    assert_eq!(error, "there are no tokens 1 to 4; allowed: a part of 0 to 3");
    #[expect(clippy::reversed_empty_ranges, reason = "what a caller may get wrong")]
    let reversed = part.without_tokens(2..1);
    assert!(matches!(reversed, Err(LogProbsError::UnknownTokens { .. })));
}

#[test]
fn parts_share_the_numbers() {
    let all = matrix(&[[-1.0, -2.0], [-3.0, -4.0]]);
    let part = all.select_members(&[1]).unwrap().select_tokens(1..2).unwrap();
    assert!(std::ptr::eq(&all.column(1)[1], &part.column(0)[0]));
}

#[test]
fn perplexities_are_as_by_hand() {
    let all = matrix(&[[0.5_f64.ln(), 0.25_f64.ln()], [0.125_f64.ln(), 0.25_f64.ln()]]);
    assert!((all.perplexity_of(0).unwrap() - 4.0).abs() < 1e-12);
    assert!((all.mean_log_prob_of(1).unwrap() - 0.25_f64.ln()).abs() < 1e-12);
    assert_eq!((all.perplexity_of(2), all.column(2)), (None, &[][..]));
    // 0.375 and 0.1875, whose product is 0.0703125.
    assert!((all.perplexity(&[3.0, 3.0]).unwrap() - 0.0703125_f64.powf(-0.5)).abs() < 1e-12);
    assert!((all.perplexity(&[1.0, 0.0]).unwrap() - 4.0).abs() < 1e-12);
    assert_eq!(all.mean_log_prob(&[1.0]), Err(WeightsError::Count { given: 1, members: 2 }));
}

#[test]
fn a_mixture_is_impossible_only_where_its_members_are() {
    let all = matrix(&[[-1.0, ZERO], [-1.0, -1.0]]);
    assert_eq!(all.perplexity(&[0.0, 1.0]).unwrap(), f64::INFINITY);
    assert_eq!(all.perplexity_of(1).unwrap(), f64::INFINITY);
    assert!((all.mean_log_prob(&[0.5, 0.5]).unwrap() - (0.5 * (0.5_f64.ln() - 1.0) - 0.5)).abs() < 1e-12);
    // Probabilities that no f64 holds.
    assert!((matrix(&[[-2000.0, -2000.0]]).mean_log_prob(&[0.3, 0.7]).unwrap() + 2000.0).abs() < 1e-9);
}

proptest! {
    #[test]
    fn a_mixture_is_between_its_members_token_by_token(
        row in prop::collection::vec(-30.0..0.0_f64, 3), weights in prop::collection::vec(0.01..1.0_f64, 3),
    ) {
        let mean = LogProbs::new(names(3), [&row]).unwrap().mean_log_prob(&weights).unwrap();
        let (least, most) = row.iter().fold((0.0_f64, f64::NEG_INFINITY), |(least, most), value| (least.min(*value), most.max(*value)));
        prop_assert!(mean >= least - 1e-12 && mean <= most + 1e-12);
    }
}
