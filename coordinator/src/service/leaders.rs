//! Who leads at a position under the weighted average or a vote, found with as few bytes as prove it: first every member's
//! likeliest tokens; then, where they leave it open, what the certificate says is missing; at last whole rows.
//!
//! Knows nothing about what the leaders are for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chorus_proto::v1::{Participation, RowFormat};
use tonic::Status;

use super::decided::is_decided;
use super::sound::make_of_rows;
use crate::ensemble::{fuse_status, step_status};
use crate::fusion::certificate::{Contest, Evidence, Leader, Places, Verdict, ahead, judge};
use crate::fusion::{Candidate, Fused, Fusion, Row, RowError};
use crate::plan::{Ask, Positions};
use crate::replica::Answer;
use crate::session::{EnsembleSession, StepAnswers};
use crate::weights::{Weighting, Weights};

/// Lists that leave a contest open grow by this factor.
const DEEPER: u32 = 16;

/// What is looked for.
#[derive(Clone)]
pub(super) struct Search {
    pub(super) fusion: Fusion,
    pub(super) weighting: Weighting,
    pub(super) places: Places,
    /// Likeliest tokens that every member is asked for first.
    pub(super) k: u32,
    pub(super) log_threshold: Option<f64>,
    pub(super) vocabulary_size: usize,
}

/// What was found.
pub(super) struct Lead {
    /// Best first.
    pub(super) leaders: Vec<Leader>,
    /// The likeliest tokens of each participant, in member order, likeliest first; as many as there are leaders.
    pub(super) members: Vec<(usize, Vec<Candidate>)>,
    pub(super) participation: Participation,
    /// Whether the lists that were asked for first were long enough.
    pub(super) by_first_lists: bool,
}

/// The evidence of one position.
struct Inquiry<'a> {
    session: &'a mut EnsembleSession,
    search: &'a Search,
    /// What each participant has said, by member index.
    said: BTreeMap<usize, Evidence>,
    participation: Participation,
    by_first_lists: bool,
}

/// Appends tokens to the session and finds who leads after them.
pub(super) async fn find(
    session: &mut EnsembleSession,
    tokens: &[u32],
    search: &Search,
) -> Result<Lead, Status> {
    let decided = |answers: &[(usize, &Answer)], awaited: &[usize]| search.is_decided(answers, awaited);
    let answers = match search.places {
        Places::Winner => session.step_until(tokens, &search.top(search.k), decided).await,
        // Every probability counts.
        Places::Leaders(_) => session.step(tokens, &search.top(search.k)).await,
    };
    let answers = answers.map_err(|error| step_status(&error))?;
    let said = answers.answers.iter().filter_map(|(index, answer)| match answer {
        Answer::Top(tops) => Some((*index, Evidence::new(&tops.row(0).ok()?))),
        _ => None,
    });
    let (said, participation) = (said.collect(), answers.participation);
    Inquiry { session, search, said, participation, by_first_lists: true }.until_settled().await
}

impl Search {
    fn contest(&self) -> Contest {
        let Self { places, log_threshold, vocabulary_size, .. } = *self;
        Contest { log_threshold, places, vocabulary_size }
    }

    fn top(&self, k: u32) -> Ask {
        Ask::Top { positions: Positions::Next, k, log_threshold: self.log_threshold }
    }

    /// Whether these answers make a winner that the awaited members can't change.
    fn is_decided(&self, answers: &[(usize, &Answer)], awaited: &[usize]) -> bool {
        let said = answers.iter().filter_map(|(index, answer)| match answer {
            Answer::Top(tops) => Some((*index, Evidence::new(&tops.row(0).ok()?))),
            _ => None,
        });
        let said: Vec<(usize, Evidence)> = said.collect();
        let answered: Vec<usize> = said.iter().map(|(index, _)| *index).collect();
        is_decided(&self.weighting, &answered, awaited, |weights| {
            let said = said.iter().map(|(index, evidence)| (weights.of(*index), evidence));
            ahead(&self.contest(), &said.collect::<Vec<_>>()).ok()
        })
    }

    /// How many places are to be filled.
    fn size(&self) -> usize {
        match self.places {
            Places::Winner => 1,
            Places::Leaders(places) => places,
        }
    }
}

impl Inquiry<'_> {
    async fn until_settled(mut self) -> Result<Lead, Status> {
        let mut k = self.search.k;
        loop {
            let asks = match self.judge()? {
                Verdict::Settled(leaders) => return Ok(self.lead(leaders)),
                Verdict::Unknown(ids) => self.asks_about(&ids),
                Verdict::Deeper => {
                    self.by_first_lists = false;
                    k = k.saturating_mul(DEEPER);
                    let (list, row) = (self.search.top(k), Ask::next_row(RowFormat::F32));
                    let size = self.search.vocabulary_size;
                    if list.answer_bytes(1, size) >= row.answer_bytes(1, size) {
                        return self.by_whole_rows().await;
                    }
                    self.said.keys().map(|index| (*index, list.clone())).collect()
                }
            };
            self.follow_up(&asks).await?;
        }
    }

    /// Of those who take part.
    fn weights(&self) -> Cow<'_, Weights> {
        self.search.weighting.among(&self.said.keys().copied().collect::<Vec<_>>())
    }

    fn judge(&self) -> Result<Verdict, Status> {
        let (weights, said) = (self.weights(), self.said.iter());
        let participants: Vec<(f64, &Evidence)> =
            said.map(|(index, evidence)| (weights.of(*index), evidence)).collect();
        judge(&self.search.contest(), &participants).map_err(|error| fuse_status(error, &self.participation))
    }

    /// Asks each member that has a share for what it has not said about these tokens.
    fn asks_about(&self, ids: &[u32]) -> BTreeMap<usize, Ask> {
        let weights = self.weights();
        let sharing = self.said.iter().filter(|(index, _)| weights.of(**index) > 0.0);
        let unknown = sharing.map(|(index, evidence)| (*index, evidence.unknown(ids)));
        unknown.filter(|(_, ids)| !ids.is_empty()).map(|(index, ids)| (index, Ask::Ids(ids.into()))).collect()
    }

    async fn follow_up(&mut self, asks: &BTreeMap<usize, Ask>) -> Result<(), Status> {
        let answers = self.ask(asks).await?;
        for (index, answer) in &answers.answers {
            let learned = match (asks.get(index), self.said.get_mut(index)) {
                (Some(ask), Some(evidence)) => learn(evidence, ask, answer),
                _ => Ok(()),
            };
            if let Err(error) = learned {
                let participants: Vec<usize> = self.said.keys().copied().collect();
                let participation = self.session.discredit(&participants, *index, &error);
                self.participation = participation.map_err(|error| step_status(&error))?;
                self.said.remove(index);
            }
        }
        Ok(())
    }

    /// Members that are lost now are out of the step, and what they said before with them.
    async fn ask(&mut self, asks: &BTreeMap<usize, Ask>) -> Result<StepAnswers, Status> {
        let participants: Vec<usize> = self.said.keys().copied().collect();
        let answers =
            self.session.follow_up(&participants, asks).await.map_err(|error| step_status(&error))?;
        self.said.retain(|index, _| answers.participants.contains(index));
        self.participation = answers.participation.clone();
        Ok(answers)
    }

    fn lead(self, leaders: Vec<Leader>) -> Lead {
        let size = self.search.size();
        let members = self.said.iter().map(|(index, evidence)| (*index, evidence.leading(size)));
        let members = members.collect();
        Lead { leaders, members, participation: self.participation, by_first_lists: self.by_first_lists }
    }

    async fn by_whole_rows(mut self) -> Result<Lead, Status> {
        let row = Ask::next_row(RowFormat::F32);
        let asks = self.said.keys().map(|index| (*index, row.clone())).collect();
        let answers = self.ask(&asks).await?;
        lead_of_rows(self.session, answers, self.search).await
    }
}

/// Who leads by the whole rows of all participants.
pub(super) async fn lead_of_rows(
    session: &mut EnsembleSession,
    answers: StepAnswers,
    search: &Search,
) -> Result<Lead, Status> {
    let numbers = search.vocabulary_size * answers.answers.len();
    let (search, size) = (search.clone(), search.size());
    let leaders = move |answers: &StepAnswers| {
        let leaders =
            answers.fuse(0, &search.fusion, &search.weighting.among(&answers.participants), |fused| {
                match fused {
                    Fused::Distribution(fused) => fused.top(size).into_iter().map(Leader::from).collect(),
                    Fused::Winner(winner) => winner.top(size).into_iter().map(Leader::from).collect(),
                }
            })?;
        let of_member = |(index, row): (usize, Row<'_>)| (index, row.top(size));
        Ok((leaders, answers.rows(0).into_iter().map(of_member).collect()))
    };
    let ((leaders, members), answers) = make_of_rows(session, answers, numbers, leaders).await?;
    Ok(Lead { leaders, members, participation: answers.participation, by_first_lists: false })
}

fn learn(evidence: &mut Evidence, ask: &Ask, answer: &Answer) -> Result<(), RowError> {
    match (ask, answer) {
        (Ask::Ids(ids), Answer::Ids { logits, norm }) => evidence.learn(ids, logits, *norm),
        (Ask::Top { .. }, Answer::Top(tops)) => evidence.deepen(&tops.row(0)?),
        // An answer is checked against its question where it comes in.
        _ => Ok(()),
    }
}
