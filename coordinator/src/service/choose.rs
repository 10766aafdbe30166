//! Which token comes next, of the participants' rows, and what is told of it and of those that might have come.
//!
//! Pure. Knows nothing about how rows come, or how many tokens follow.

use chorus_proto::v1::{GeneratedToken, MemberLogProb, TokenCandidate, Votes};

use crate::fusion::{Candidate, FuseError, Fused, Fusion, Row, Rule, VoteCandidate, shares};
use crate::request::Generation;
use crate::sampling::{drawing_member, uniform};
use crate::session::StepAnswers;
use crate::weights::Weights;

/// Fuses the participants' rows and takes the token of this index. `seen` are the tokens of the text, where that counts.
pub(super) fn choose(
    generation: &Generation,
    weights: &Weights,
    seen: &[u32],
    seed: u64,
    index: u32,
    answers: &StepAnswers,
) -> Result<GeneratedToken, FuseError> {
    let Generation { fusing, sampling, adjusting, .. } = generation;
    let Fusion { rule, .. } = fusing.fusion;
    let candidates = generation.candidates as usize;
    let mut token = answers.fuse(0, &fusing.fusion, weights, |fused| match fused {
        Fused::Distribution(mut distribution) => {
            let by_member = rule == Rule::WeightedAverage && sampling.is_plain() && adjusting.is_none();
            let drawn = by_member.then(|| draw_of_member(weights, seed, index, answers)).flatten();
            let uniform = if sampling.draws() { uniform(seed, index) } else { 0.0 };
            let id = match drawn {
                Some(id) => id,
                None if adjusting.is_none() => sampling.choose(&mut distribution, uniform),
                None => distribution.adjusted(&adjusting.after(seen), |bent| sampling.choose(bent, uniform)),
            };
            let log_prob = generation.log_probs.then(|| distribution.log_prob(id)).flatten();
            let candidates = distribution.top(candidates).into_iter().map(candidate).collect();
            GeneratedToken { id, index, log_prob, candidates, ..GeneratedToken::default() }
        }
        Fused::Winner(winner) => {
            let votes = Votes { count: winner.votes, by_weighted_average: winner.by_weighted_average };
            let candidates = winner.top(candidates).into_iter().map(voted).collect();
            let (id, votes) = (winner.id, Some(votes));
            GeneratedToken { id, index, votes, candidates, ..GeneratedToken::default() }
        }
    })?;
    for candidate in &mut token.candidates {
        let of_member = |(_, row): (usize, Row<'_>)| Some(row.log_prob(candidate.id)?.exp());
        candidate.member_probabilities = answers.rows(0).into_iter().filter_map(of_member).collect();
    }
    if generation.log_probs {
        let names = answers.participation.participants.iter().cloned();
        let shares = shares(rule, &weights.of_all(&answers.participants))?;
        let of_member = names.zip(answers.rows(0)).zip(shares).filter_map(|((name, (_, row)), weight)| {
            Some(MemberLogProb { name, log_prob: row.log_prob(token.id)?, weight })
        });
        token.members = of_member.collect();
    }
    Ok(token)
}

fn candidate(candidate: Candidate) -> TokenCandidate {
    TokenCandidate { id: candidate.id, probability: candidate.log_prob.exp(), ..TokenCandidate::default() }
}

fn voted(candidate: VoteCandidate) -> TokenCandidate {
    TokenCandidate {
        id: candidate.id,
        probability: candidate.log_prob.exp(),
        votes: Some(candidate.votes),
        ..TokenCandidate::default()
    }
}

/// What [`crate::plan::Plan::Drawn`] draws, from rows: a seed's text does not depend on whether log-probabilities are wanted.
fn draw_of_member(weights: &Weights, seed: u64, index: u32, answers: &StepAnswers) -> Option<u32> {
    let rows = answers.rows(0);
    let members = rows.iter().map(|(member, _)| (*member, weights.of(*member)));
    let drawing = drawing_member(seed, index, members)?;
    rows.iter().find(|(member, _)| *member == drawing).map(|(_, row)| row.draw(uniform(seed, index)))
}
