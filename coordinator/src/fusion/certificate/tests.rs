//! The certificate against whole rows: whoever it says leads, leads there, to the bit, for hostile rows too.

use chorus_simd::norm;
use proptest::prelude::*;

use super::*;
use crate::fusion::{Fused, Fusion, Row, Scratch, fuse};

#[derive(Clone, Debug)]
struct Member {
    weight: f64,
    logits: Vec<f32>,
}

impl Member {
    fn row(&self) -> Row<'_> {
        Row::new(&self.logits, norm(&self.logits), self.logits.len()).unwrap()
    }

    /// What the member answers to an ask for its likeliest tokens, by sorting the row.
    fn top(&self, k: usize, log_threshold: Option<f64>) -> (Vec<u32>, Vec<f32>, f64) {
        let log_prob = |id: u32| self.row().log_prob(id).unwrap();
        let mut ids: Vec<u32> = (0..self.logits.len() as u32).collect();
        ids.sort_by(|a, b| log_prob(*b).total_cmp(&log_prob(*a)).then(a.cmp(b)));
        let above = ids.iter().filter(|id| log_threshold.is_some_and(|t| log_prob(**id) > t)).count();
        ids.truncate(above.max(k));
        let last = ids.last().map_or(0.0, |last| log_prob(*last));
        let bound = log_threshold.map_or(last, |threshold| last.min(threshold));
        let bound = if ids.len() == self.logits.len() { f64::NEG_INFINITY } else { bound };
        ids.sort_unstable();
        let logits = ids.iter().map(|id| self.logits[*id as usize]).collect();
        (ids, logits, bound)
    }

    fn evidence(&self, k: usize, log_threshold: Option<f64>) -> Evidence {
        let (ids, logits, bound) = self.top(k, log_threshold);
        let norm = norm(&self.logits);
        Evidence::new(&Top { ids: &ids, logits: &logits, norm, target: None, bound })
    }
}

/// How a contest ended, and after how many questions.
struct Settled {
    leaders: Vec<Leader>,
    asked: usize,
}

/// Asks as a coordinator does, until the contest is settled; at last whole rows are lists of everything.
fn settle(contest: &Contest, members: &[Member], mut k: usize) -> Settled {
    let mut evidence: Vec<Evidence> =
        members.iter().map(|member| member.evidence(k, contest.log_threshold)).collect();
    for asked in 1.. {
        assert!(asked < 20, "it never ends");
        let participants: Vec<(f64, &Evidence)> =
            members.iter().map(|member| member.weight).zip(&evidence).collect();
        match judge(contest, &participants).unwrap() {
            Verdict::Settled(leaders) => return Settled { leaders, asked },
            Verdict::Unknown(ids) => {
                assert!(ids.is_sorted() && !ids.is_empty());
                let mut news = 0;
                for (member, evidence) in members.iter().zip(&mut evidence) {
                    let ids = evidence.unknown(&ids);
                    news += ids.len();
                    let logits: Vec<f32> = ids.iter().map(|id| member.logits[*id as usize]).collect();
                    evidence.learn(&ids, &logits, norm(&member.logits)).unwrap();
                }
                assert!(news > 0, "nothing that is known is asked for");
            }
            Verdict::Deeper => {
                assert!(k < contest.vocabulary_size, "there is nothing deeper");
                k = (k * 4).max(1).min(contest.vocabulary_size);
                for (member, evidence) in members.iter().zip(&mut evidence) {
                    let (ids, logits, bound) = member.top(k, contest.log_threshold);
                    let top =
                        Top { ids: &ids, logits: &logits, norm: norm(&member.logits), target: None, bound };
                    evidence.deepen(&top).unwrap();
                }
            }
        }
    }
    unreachable!("the loop has no end")
}

/// The same by whole rows: (id, votes, bits of the log-probability).
fn reference(
    contest: &Contest,
    threshold: Option<f64>,
    members: &[Member],
    n: usize,
) -> Vec<(u32, u32, u64)> {
    let rows: Vec<(f64, Row<'_>)> = members.iter().map(|member| (member.weight, member.row())).collect();
    let rule = if threshold.is_some() { Rule::ThresholdVote } else { Rule::WeightedAverage };
    assert_eq!(contest.log_threshold, threshold.map(f64::ln));
    let fusion = Fusion { rule, threshold: threshold.unwrap_or(0.1) };
    match fuse(&fusion, &rows, &mut Scratch::default()).unwrap() {
        Fused::Distribution(distribution) => {
            distribution.top(n).iter().map(|c| (c.id, 0, c.log_prob.to_bits())).collect()
        }
        Fused::Winner(winner) => {
            winner.top(n).iter().map(|c| (c.id, c.votes, c.log_prob.to_bits())).collect()
        }
    }
}

/// The same margin by whole rows.
fn margin_of_rows(threshold: Option<f64>, members: &[Member]) -> Result<Margin, FuseError> {
    let rows: Vec<(f64, Row<'_>)> = members.iter().map(|member| (member.weight, member.row())).collect();
    let rule = if threshold.is_some() { Rule::ThresholdVote } else { Rule::WeightedAverage };
    let fusion = Fusion { rule, threshold: threshold.unwrap_or(0.1) };
    fuse(&fusion, &rows, &mut Scratch::default()).map(|fused| crate::fusion::ahead_of(fused).margin)
}

/// Ties, near ties and extremes, with members that agree more or less.
fn members() -> impl Strategy<Value = Vec<Member>> {
    let value = prop_oneof![
        4 => (-6_i8..6).prop_map(f32::from),
        // Neighbours in f32 and in f64.
        2 => (0_u32..4).prop_map(|ulps| f32::from_bits(2.0_f32.to_bits() + ulps)),
        1 => Just(-2000.0_f32),
        1 => -6.0_f32..6.0,
    ];
    let weight = prop_oneof![4 => 0.01..10.0_f64, 2 => Just(1.0), 1 => Just(0.0)];
    (1..40_usize, 1..6_usize).prop_flat_map(move |(vocabulary_size, members)| {
        let logits = prop::collection::vec(value.clone(), vocabulary_size);
        let member = (weight.clone(), logits.clone(), any::<bool>());
        (logits, prop::collection::vec(member, members)).prop_map(|(common, members)| {
            let member = |(weight, own, agrees): (f64, Vec<f32>, bool)| {
                let together = |(common, own): (&f32, &f32)| common + own / 8.0;
                let logits = if agrees { common.iter().zip(&own).map(together).collect() } else { own };
                Member { weight, logits }
            };
            let mut members: Vec<Member> = members.into_iter().map(member).collect();
            if members.iter().all(|member| member.weight == 0.0) {
                members[0].weight = 1.0;
            }
            members
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whoever of the awaited members answers, the leader that was decided on without them leads.
    #[test]
    fn what_is_decided_early_is_what_all_would_have_decided(
        members in members(), k in 1..12_usize, threshold in prop::option::of(0.01..0.9_f64),
        answering in any::<u32>(), joining in prop::collection::vec(any::<u32>(), 4),
    ) {
        let contest = Contest {
            log_threshold: threshold.map(f64::ln),
            places: Places::Winner,
            vocabulary_size: members[0].logits.len(),
        };
        let has = |mask: u32, place: usize| mask & (1 << place) != 0;
        let (answered, awaited): (Vec<usize>, Vec<usize>) =
            (0..members.len()).partition(|place| has(answering, *place));
        let weights = |places: &[usize]| places.iter().map(|place| members[*place].weight).collect::<Vec<_>>();
        let of = |places: &[usize]| places.iter().map(|place| members[*place].clone()).collect::<Vec<_>>();
        let evidence: Vec<Evidence> =
            of(&answered).iter().map(|member| member.evidence(k, contest.log_threshold)).collect();
        let participants: Vec<(f64, &Evidence)> = weights(&answered).into_iter().zip(&evidence).collect();
        let by_lists = match ahead(&contest, &participants) {
            Ok(Ahead { margin, .. }) => margin.is_decisive(&weights(&answered), &weights(&awaited)),
            Err(_) => false,
        };
        if let Ok(of_rows) = margin_of_rows(threshold, &of(&answered)) {
            let by_rows = of_rows.is_decisive(&weights(&answered), &weights(&awaited));
            prop_assert!(by_rows || !by_lists, "lists prove no more than rows");
            if !by_rows {
                return Ok(());
            }
            let winner = reference(&contest, threshold, &of(&answered), 1)[0].0;
            if by_lists {
                prop_assert_eq!(settle(&contest, &of(&answered), k).leaders[0].id, winner);
            }
            for joining in joining.into_iter().chain([u32::MAX]) {
                // In member order, as always.
                let places: Vec<usize> =
                    (0..members.len()).filter(|place| has(answering, *place) || has(joining, *place)).collect();
                prop_assert_eq!(reference(&contest, threshold, &of(&places), 1)[0].0, winner);
            }
        }
    }

    #[test]
    fn the_leaders_are_those_of_whole_rows_to_the_bit(
        members in members(), k in 1..12_usize, n in 0..45_usize, threshold in prop::option::of(0.01..0.9_f64),
    ) {
        let contest = Contest {
            log_threshold: threshold.map(f64::ln),
            places: Places::Leaders(n),
            vocabulary_size: members[0].logits.len(),
        };
        let leaders = settle(&contest, &members, k).leaders.into_iter();
        let leaders: Vec<_> = leaders.map(|l| (l.id, l.votes, l.log_prob.unwrap().to_bits())).collect();
        prop_assert_eq!(leaders, reference(&contest, threshold, &members, n));
    }

    #[test]
    fn the_winner_is_that_of_whole_rows(
        members in members(), k in 1..12_usize, threshold in prop::option::of(0.01..0.9_f64),
    ) {
        let vocabulary_size = members[0].logits.len();
        let log_threshold = threshold.map(f64::ln);
        let contest = Contest { log_threshold, places: Places::Winner, vocabulary_size };
        let leaders = settle(&contest, &members, k).leaders;
        let expected = reference(&contest, threshold, &members, 1)[0];
        prop_assert_eq!((leaders.len(), leaders[0].id, leaders[0].votes), (1, expected.0, expected.1));
    }

    #[test]
    fn the_outcome_for_a_token_is_that_of_whole_rows_or_open(
        members in members(), k in 1..12_usize, token in any::<prop::sample::Index>(), threshold in 0.01..0.9_f64,
    ) {
        let vocabulary_size = members[0].logits.len();
        let token = token.index(vocabulary_size) as u32;
        let contest = Contest { log_threshold: Some(threshold.ln()), places: Places::Winner, vocabulary_size };
        let mut evidence: Vec<Evidence> =
            members.iter().map(|member| member.evidence(k, contest.log_threshold)).collect();
        for (member, evidence) in members.iter().zip(&mut evidence) {
            let ids = evidence.unknown(&[token]);
            let logits: Vec<f32> = ids.iter().map(|id| member.logits[*id as usize]).collect();
            evidence.learn(&ids, &logits, norm(&member.logits)).unwrap();
        }
        let participants: Vec<(f64, &Evidence)> =
            members.iter().map(|member| member.weight).zip(&evidence).collect();
        let outcome = outcome(token, &contest, &participants).unwrap();
        let all = reference(&contest, Some(threshold), &members, vocabulary_size);
        let votes = all.iter().find(|leader| leader.0 == token).unwrap().1;
        prop_assert_eq!((outcome.votes, outcome.by_weighted_average), (votes, all[0].1 == 0));
        if let Some(wins) = outcome.wins {
            prop_assert_eq!(wins, all[0].0 == token);
        } else {
            prop_assert!(k < vocabulary_size, "with everything known nothing is open");
        }
    }
}

fn member(weight: f64, probabilities: &[f64]) -> Member {
    Member { weight, logits: probabilities.iter().map(|p| p.ln() as f32).collect() }
}

fn winner_of(vocabulary_size: usize) -> Contest {
    Contest { log_threshold: None, places: Places::Winner, vocabulary_size }
}

#[test]
fn where_members_agree_one_question_is_enough() {
    let members = [member(1.0, &[0.1, 0.6, 0.2, 0.1]), member(2.0, &[0.1, 0.5, 0.1, 0.3])];
    let settled = settle(&winner_of(4), &members, 2);
    assert_eq!((settled.asked, settled.leaders[0].id), (1, 1));
}

#[test]
fn a_token_that_leads_nowhere_can_lead_together() {
    // Each has a favourite of its own, and token 2 is everybody's second.
    let members = [member(1.0, &[0.6, 1e-9, 0.4]), member(1.0, &[1e-9, 0.6, 0.4])];
    let settled = settle(&winner_of(3), &members, 1);
    assert_eq!(settled.leaders[0].id, 2);
    assert!(settled.asked > 1, "one question can't prove it");
}

#[test]
fn equal_tokens_go_to_the_lowest_however_far_down_the_list_they_are() {
    let flat = Member { weight: 1.0, logits: vec![0.0; 100] };
    let settled = settle(&winner_of(100), &[flat.clone(), flat], 8);
    assert_eq!(settled.leaders[0].id, 0);
}

#[test]
fn a_member_that_contradicts_itself_is_found_out() {
    let honest = member(1.0, &[0.5, 0.3, 0.1, 0.1]);
    let of_honest = norm(&honest.logits);
    let log = |p: f64| p.ln() as f32;
    let learn = |ids: &[u32], logits: &[f32], norm| honest.evidence(2, None).learn(ids, logits, norm);
    assert_eq!(learn(&[0, 3], &[log(0.5), log(0.1)], of_honest), Ok(()));
    let lies = [
        learn(&[2], &[log(0.4)], of_honest),
        learn(&[1], &[log(0.2)], of_honest),
        learn(&[2], &[log(0.1)], Norm { log_sum: of_honest.log_sum + 1e-9, ..of_honest }),
        learn(&[2], &[f32::NAN], of_honest),
        learn(&[2], &[log(0.9)], of_honest),
    ];
    assert!(lies.iter().all(Result::is_err), "{lies:?}");
    // A longer list that leaves out what was said before.
    let mut evidence = honest.evidence(2, None);
    let (logits, bound) = ([log(0.5), log(0.1), log(0.1)], log(0.1).into());
    let shorter = Top { ids: &[0, 2, 3], logits: &logits, norm: of_honest, target: None, bound };
    assert_eq!(evidence.deepen(&shorter), Err(RowError::Contradiction { id: 1 }));
}

#[test]
fn nobody_and_nothing_can_be_judged_by_no_weight() {
    let evidence = member(0.0, &[0.5, 0.5]).evidence(1, None);
    assert_eq!(judge(&winner_of(2), &[]), Err(FuseError::NoParticipants));
    assert_eq!(judge(&winner_of(2), &[(0.0, &evidence)]), Err(FuseError::NoWeight));
}
