//! [`EnsembleSession`]: one client sequence over all members: every step goes to those in step, the lost are left out at
//! once and come back when they have caught up.
//!
//! Knows nothing about requests, rules or text; time comes from the runtime, so tests can pause it.

mod alarm;
mod answers;
mod awaited;
mod bells;
mod catch_up;
mod fork;
mod kept;
mod losses;
mod member_session;
mod place;
mod sitting;
mod tally;
mod terms;
mod transcript;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::mem::take;
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use chorus_proto::v1::{MissingMember, Participation};
use chorus_text::Vocabulary;
use tokio::time::{Instant, timeout_at};

use crate::fusion::RowError;
use crate::member::Member;
use crate::plan::Ask;
use crate::quorum::QuorumError;
use crate::replica::{Answer, ReplicaError};
use crate::roster::Roster;
use crate::snapshot::Snapshot;

use alarm::Alarm;
use awaited::{Awaited, Boxes, Returned};
use catch_up::CatchUp;
use losses::{Losses, Return};
use member_session::MemberSession;
use place::Place;
use tally::{Standing, Tally};
use transcript::Transcript;

pub(crate) use answers::StepAnswers;
pub(crate) use terms::{Patience, SessionTerms};

/// What is decided without a member is decided after this long at the earliest: members of a like speed are not separated by
/// chance.
const SHORTEST_PATIENCE: Duration = Duration::from_millis(2);

/// Whether a lost member may come back into a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rejoin {
    /// It joins as soon as it has caught up.
    Allowed,
    /// Its answers would not cover the whole input.
    Never,
}

/// One client sequence in progress. Dropping it closes the session at every member.
pub(crate) struct EnsembleSession {
    roster: Arc<Roster>,
    terms: SessionTerms,
    rejoin: Rejoin,
    transcript: Transcript,
    vocabulary_size: usize,
    /// One for each member, in member order.
    places: Vec<Place>,
    /// One for each member, in member order.
    losses: Vec<Losses>,
    boxes: Boxes,
    /// Rings when those that have answered have been patient.
    alarm: Alarm,
    /// How long the first answer about the last token took: before twice that there is nothing to decide.
    first_took: Option<Duration>,
}

/// Why a step has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    /// Fewer members answered than the quorum asks for.
    #[error(transparent)]
    BelowQuorum(QuorumError),
    /// Fewer members answered than the quorum asks for, and all that failed have no room now.
    #[error("{0}")]
    Exhausted(QuorumError),
    /// Every member there is says that the request is at fault.
    #[error("{0}")]
    Refused(String),
}

impl EnsembleSession {
    /// Opens the session at every member that is up, except for those in `barred`, each with the reason why. `vocabulary` is
    /// the one that the tokens are of. Members go on from their `states`, each of which has to be that after the tokens which
    /// are then read first.
    pub(crate) fn begin(
        roster: &Arc<Roster>,
        vocabulary: &Vocabulary,
        terms: SessionTerms,
        rejoin: Rejoin,
        barred: &BTreeMap<usize, String>,
        mut states: BTreeMap<usize, Snapshot>,
    ) -> Self {
        let mut session = Self {
            roster: Arc::clone(roster),
            terms,
            rejoin,
            transcript: Transcript::new(vocabulary.fingerprint()),
            vocabulary_size: vocabulary.len() as usize,
            places: Vec::new(),
            losses: vec![Losses::default(); roster.members.len()],
            boxes: Boxes::default(),
            alarm: Alarm::default(),
            first_took: None,
        };
        for index in 0..roster.members.len() {
            let place = match barred.get(&index) {
                Some(reason) => Place::Out { reason: reason.clone() },
                None => session.first_place(index, states.remove(&index)),
            };
            session.places.push(place);
        }
        session
    }

    /// Appends tokens and asks every member in step the same about them. Members that fail are out at once; the step goes
    /// on with the others.
    ///
    /// # Errors
    /// Below quorum, or refused by everybody. The session is of no use then.
    pub(crate) async fn step(&mut self, tokens: &[u32], ask: &Ask) -> Result<StepAnswers, StepError> {
        let budget = self.roster.dense.reserve(ask, tokens.len(), self.vocabulary_size).await;
        let answers = self.step_of_each(tokens, |_| |_: usize| ask.clone()).await?;
        Ok(StepAnswers { _budget: budget, ..answers })
    }

    /// As [`Self::step`], where each member may be asked something else: `asks` is called once with the indices of the
    /// members that are in step, and gives what a member is asked.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub(crate) async fn step_of_each<A: FnMut(usize) -> Ask>(
        &mut self,
        tokens: &[u32],
        asks: impl FnOnce(&[usize]) -> A,
    ) -> Result<StepAnswers, StepError> {
        self.welcome_back();
        let places = self.places.iter_mut().enumerate();
        let in_step: Vec<usize> =
            places.filter_map(|(index, place)| place.in_step().map(|_| index)).collect();
        let mut ask = asks(&in_step);
        let asks = in_step.into_iter().map(|index| (index, ask(index))).collect();
        let start = self.transcript.len();
        let step = start..self.transcript.extend(tokens);
        let results = self.ask(&asks, step.clone()).await;
        self.conclude(results, step, ask).await
    }

    /// Asks some of the participants of the last step more about the session as it stands. Those that fail are out of the
    /// step, as if they had failed in it. The answers are those of the members that were asked now; the participation is
    /// that of the whole step.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub(crate) async fn follow_up(
        &mut self,
        participants: &[usize],
        asks: &BTreeMap<usize, Ask>,
    ) -> Result<StepAnswers, StepError> {
        let others: Vec<usize> =
            participants.iter().copied().filter(|index| !asks.contains_key(index)).collect();
        let end = self.transcript.len();
        let results = self.ask(asks, end..end).await;
        self.settle(results, &others)
    }

    /// Puts a participant out of the last step whose answer looked sound and was not; gives the participation of the
    /// others.
    ///
    /// # Errors
    /// Below quorum without it.
    pub(crate) fn discredit(
        &mut self,
        participants: &[usize],
        index: usize,
        error: &RowError,
    ) -> Result<Participation, StepError> {
        if let Some(session) = self.places[index].in_step() {
            session.discredit();
        }
        self.lose(index, &ReplicaError::Protocol { violation: error.to_string() });
        let others: Vec<usize> = participants.iter().copied().filter(|other| *other != index).collect();
        let participation = self.participation_of(&others);
        self.check_quorum(&participation).map_err(StepError::BelowQuorum)?;
        Ok(participation)
    }

    /// Asks members about a step.
    async fn ask(
        &mut self,
        asks: &BTreeMap<usize, Ask>,
        step: Range<usize>,
    ) -> Vec<(usize, Result<Answer, ReplicaError>)> {
        let mut awaited = Awaited::new(&self.transcript, step, take(&mut self.boxes));
        for (index, ask) in asks {
            match take(&mut self.places[*index]) {
                Place::InStep(session) => awaited.ask(*index, session, ask.clone()),
                other => self.places[*index] = other,
            }
        }
        let mut results = Vec::new();
        while let Some((index, Returned { session, result })) = awaited.next().await {
            self.places[index] = Place::InStep(session);
            results.push((index, result));
        }
        (_, self.boxes) = awaited.into_stragglers();
        // In member order, whoever was first.
        results.sort_unstable_by_key(|(index, _)| *index);
        results
    }

    /// As [`Self::step`], but it ends without the members that take more than twice as long as the others where
    /// `is_decided` says, of the answers that came (in member order) and of the members that are awaited, that nothing
    /// which may still come makes a difference. They are awaited again in the
    /// next step, so that the outcome is always that of all of them.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub(crate) async fn step_until(
        &mut self,
        tokens: &[u32],
        ask: &Ask,
        is_decided: impl Fn(&[(usize, &Answer)], &[usize]) -> bool,
    ) -> Result<StepAnswers, StepError> {
        // Where nobody comes back, a straggler would be missing from all that follows.
        let is_loss = self.terms.require_all || self.rejoin == Rejoin::Never;
        if !self.terms.early_decision || is_loss {
            return self.step(tokens, ask).await;
        }
        let budget = self.roster.dense.reserve(ask, tokens.len(), self.vocabulary_size).await;
        self.welcome_back();
        let start = self.transcript.len();
        let step = start..self.transcript.extend(tokens);
        let mut awaited = self.send_out(step.clone(), ask);
        let mut results: Vec<(usize, Result<Answer, ReplicaError>)> = Vec::new();
        let begin = Instant::now();
        // The clock is not set to a time that the first answer, if it comes as the last one did, would put off.
        let earliest = begin + (2 * self.first_took.take().unwrap_or_default()).max(SHORTEST_PATIENCE);
        let mut patient_until = earliest;
        let mut alarm = take(&mut self.alarm);
        alarm.set(patient_until);
        loop {
            tokio::select! {
                biased;
                returned = awaited.next() => {
                    let Some((index, Returned { session, result })) = returned else {
                        break;
                    };
                    self.places[index] = Place::InStep(session);
                    // As long again as this took.
                    let took = begin.elapsed();
                    if tokens.len() == 1 && result.is_ok() {
                        self.first_took.get_or_insert(took);
                    }
                    results.push((index, result));
                    patient_until = (begin + took + took.max(SHORTEST_PATIENCE)).max(earliest);
                }
                () = alarm.rings(patient_until) => {
                    if self.can_do_without(&awaited.members(), &results, &is_decided) {
                        break;
                    }
                    // Before the next answer there is nothing to decide.
                    patient_until = Instant::now() + self.terms.patience.step;
                }
            }
        }
        self.alarm = alarm;
        let (stragglers, boxes) = awaited.into_stragglers();
        for (index, under_way) in stragglers {
            self.places[index] = Place::Straggling(under_way);
        }
        self.boxes = boxes;
        // In member order, whoever was first.
        results.sort_unstable_by_key(|(index, _)| *index);
        let answers = self.conclude(results, step, |_| ask.clone()).await?;
        Ok(StepAnswers { _budget: budget, ..answers })
    }

    /// Asks every member that is in step or was late, each on its own way. Their places are empty until they are put back.
    fn send_out(&mut self, step: Range<usize>, ask: &Ask) -> Awaited {
        let mut awaited = Awaited::new(&self.transcript, step, take(&mut self.boxes));
        for (index, place) in self.places.iter_mut().enumerate() {
            match take(place) {
                Place::InStep(session) => awaited.ask(index, session, ask.clone()),
                Place::Straggling(earlier) => awaited.ask_after(index, earlier, ask.clone()),
                other => *place = other,
            }
        }
        awaited
    }

    /// Whether the answers that came make a result which those that are awaited can't change.
    fn can_do_without(
        &self,
        awaited: &[usize],
        results: &[(usize, Result<Answer, ReplicaError>)],
        is_decided: impl Fn(&[(usize, &Answer)], &[usize]) -> bool,
    ) -> bool {
        let answers = results.iter().filter_map(|(index, result)| Some((*index, result.as_ref().ok()?)));
        let mut answers: Vec<(usize, &Answer)> = answers.collect();
        answers.sort_unstable_by_key(|(index, _)| *index);
        let participants: Vec<usize> = answers.iter().map(|(index, _)| *index).collect();
        !answers.is_empty()
            && self.roster.check_quorum(&self.participation_of(&participants)).is_ok()
            && is_decided(&answers, awaited)
    }

    /// The most tokens of one feed that every member in step takes with this ask.
    pub(crate) fn max_feed_tokens(&mut self, ask: &Ask) -> usize {
        let sessions = self.places.iter_mut().filter_map(Place::in_step);
        sessions.map(|session| session.max_feed_tokens(ask)).min().unwrap_or(1)
    }

    /// Who is in step and who is not, and why.
    pub(crate) fn participation_of(&self, participants: &[usize]) -> Participation {
        let mut participation = Participation::default();
        for (index, (member, place)) in self.roster.members.iter().zip(&self.places).enumerate() {
            let name = member.name().to_owned();
            if participants.contains(&index) {
                participation.participants.push(name);
            } else {
                let reason = place.reason(&member.presence());
                participation.missing.push(MissingMember { name, reason, ..MissingMember::default() });
            }
        }
        participation
    }

    /// Whether the result of these may be the answer: the ensemble's quorum, or everybody where the request wants that.
    fn check_quorum(&self, participation: &Participation) -> Result<(), QuorumError> {
        if self.terms.require_all && !participation.missing.is_empty() {
            return Err(QuorumError::degraded(participation));
        }
        self.roster.check_quorum(participation)
    }

    fn first_place(&self, index: usize, state: Option<Snapshot>) -> Place {
        let member = &self.roster.members[index];
        let presence = member.presence();
        // Who comes back later has to read what there is by then, of which this may be more.
        let mut session = MemberSession::new(member, self.terms, state.filter(|_| presence.is_up()));
        if presence.is_up() {
            return match session.open(&self.transcript) {
                Ok(()) => Place::InStep(session),
                Err(error) => Place::Out { reason: error.to_string() },
            };
        }
        self.way_back(session, presence.reason().to_owned(), Duration::ZERO)
    }

    fn way_back(&self, session: Box<MemberSession>, reason: String, delay: Duration) -> Place {
        match self.rejoin {
            Rejoin::Never => Place::Out { reason },
            Rejoin::Allowed => {
                Place::CatchingUp { reason, way: CatchUp::start(session, &self.transcript, delay) }
            }
        }
    }

    fn welcome_back(&mut self) {
        for (member, place) in self.roster.members.iter().zip(&mut self.places) {
            if place.arrive() {
                tracing::info!(
                    member = member.name(),
                    position = self.transcript.len(),
                    "back in the session"
                );
            }
        }
    }

    /// What came of a step. Where that is below the quorum, members that are up and on their way back are waited for, as long
    /// as a step may take, and are asked then.
    async fn conclude(
        &mut self,
        results: Vec<(usize, Result<Answer, ReplicaError>)>,
        step: Range<usize>,
        mut ask: impl FnMut(usize) -> Ask,
    ) -> Result<StepAnswers, StepError> {
        let mut tally = self.count(results);
        let until = Instant::now() + self.terms.patience.step;
        loop {
            let verdict = self.judge(&tally, &[]);
            let Err(StepError::BelowQuorum(_) | StepError::Exhausted(_)) = verdict else {
                return verdict.map(|standing| tally.into_answers(standing));
            };
            let Some(index) = self.next_return(until).await else {
                return verdict.map(|standing| tally.into_answers(standing));
            };
            let asks = [(index, ask(index))].into();
            let more = self.ask(&asks, step.clone()).await;
            let more = self.count(more);
            tally.add(more);
        }
    }

    /// A member that is back in step, if one that is up is on its way and arrives in time.
    async fn next_return(&mut self, until: Instant) -> Option<usize> {
        let members = self.roster.members.iter().zip(&self.places);
        let may_return =
            |(member, place): (&Arc<Member>, &Place)| place.is_on_its_way() && member.presence().is_up();
        if !members.into_iter().any(may_return) {
            return None;
        }
        let places = &mut self.places;
        let arrival = poll_fn(|context| {
            let arrived = places.iter_mut().position(|place| place.poll_arrival(context).is_ready());
            arrived.map_or(Poll::Pending, Poll::Ready)
        });
        timeout_at(until, arrival).await.ok()
    }

    fn settle(
        &mut self,
        results: Vec<(usize, Result<Answer, ReplicaError>)>,
        others: &[usize],
    ) -> Result<StepAnswers, StepError> {
        let tally = self.count(results);
        let standing = self.judge(&tally, others)?;
        Ok(tally.into_answers(standing))
    }

    /// Who failed is lost.
    fn count(&mut self, results: Vec<(usize, Result<Answer, ReplicaError>)>) -> Tally {
        let mut tally = Tally::default();
        for (index, result) in results {
            match result {
                Ok(answer) => tally.answers.push((index, answer)),
                Err(error) => {
                    self.lose(index, &error);
                    tally.failures.push(error);
                }
            }
        }
        tally
    }

    /// Whether those who answered, and `others`, may speak for the ensemble.
    fn judge(&self, tally: &Tally, others: &[usize]) -> Result<Standing, StepError> {
        let participants = tally.participants(others);
        let participation = self.participation_of(&participants);
        if let Some(refusal) = tally.refusal_of_all(self.places.len()) {
            return Err(StepError::Refused(refusal));
        }
        match self.check_quorum(&participation) {
            Ok(()) => Ok(Standing { participants, participation }),
            Err(error) if tally.are_exhausted() => Err(StepError::Exhausted(error)),
            Err(error) => Err(StepError::BelowQuorum(error)),
        }
    }

    fn lose(&mut self, index: usize, error: &ReplicaError) {
        let member = &self.roster.members[index];
        let name = member.name();
        member.counts.lost(error);
        // A lost link is logged once where it is lost, not once for every session on it.
        match error {
            ReplicaError::Lost { .. } => tracing::debug!(member = name, %error, "out of the session"),
            _ => tracing::warn!(member = name, %error, "out of the session"),
        }
        let out = Place::Out { reason: error.to_string() };
        let Place::InStep(session) = std::mem::replace(&mut self.places[index], out) else {
            return;
        };
        self.places[index] = match self.losses[index].count(error) {
            Return::Never(reason) => Place::Out { reason },
            Return::After(delay) => self.way_back(session, error.to_string(), delay),
        };
    }
}
