//! [`EnsembleSession`]: one client sequence over all members: every step goes to those in step, the lost are left out at
//! once and come back when they have caught up.
//!
//! Knows nothing about requests, rules or text; time comes from the runtime, so tests can pause it.

mod answers;
mod catch_up;
mod losses;
mod member_session;
mod place;
mod transcript;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chorus_proto::v1::{MissingMember, Participation};
use chorus_text::Vocabulary;
use futures::future::join_all;

use crate::fusion::RowError;
use crate::member::{Answer, MemberError};
use crate::plan::Ask;
use crate::quorum::QuorumError;
use crate::roster::Roster;

use catch_up::CatchUp;
use losses::{Losses, Return};
use member_session::MemberSession;
use place::Place;
use transcript::Transcript;

pub(crate) use answers::StepAnswers;
pub(crate) use member_session::{Patience, SessionTerms};

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
    /// the one that the tokens are of.
    pub(crate) fn begin(
        roster: &Arc<Roster>,
        vocabulary: &Vocabulary,
        terms: SessionTerms,
        rejoin: Rejoin,
        barred: &BTreeMap<usize, String>,
    ) -> Self {
        let mut session = Self {
            roster: Arc::clone(roster),
            terms,
            rejoin,
            transcript: Transcript::new(vocabulary.fingerprint()),
            vocabulary_size: vocabulary.len() as usize,
            places: Vec::new(),
            losses: vec![Losses::default(); roster.seats.len()],
        };
        for index in 0..roster.seats.len() {
            let place = match barred.get(&index) {
                Some(reason) => Place::Out { reason: reason.clone() },
                None => session.first_place(index),
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
        let end = self.transcript.extend(tokens);
        let results = self.ask(&asks, start..end, &[]).await;
        self.settle(results, &[])
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
        let results = self.ask(asks, end..end, &others).await;
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
        self.roster.seats[index].member.discredit();
        self.lose(index, &MemberError::Protocol { violation: error.to_string() });
        let others: Vec<usize> = participants.iter().copied().filter(|other| *other != index).collect();
        let participation = self.participation_of(&others);
        self.roster.check_quorum(&participation).map_err(StepError::BelowQuorum)?;
        Ok(participation)
    }

    /// Asks members about a step. `others` take part in it, too, but are not asked.
    async fn ask(
        &mut self,
        asks: &BTreeMap<usize, Ask>,
        step: Range<usize>,
        others: &[usize],
    ) -> Vec<(usize, Result<Answer, MemberError>)> {
        let transcript = &self.transcript;
        let feeds = self.places.iter_mut().enumerate().filter_map(|(index, place)| {
            let (session, ask) = (place.in_step()?, asks.get(&index)?.clone());
            Some(async move { (index, session.advance(transcript, step.end, ask).await) })
        });
        // Completion order is of no interest: the results come in member order.
        let mut results = join_all(feeds).await;
        if results.iter().any(|(_, result)| is_forgotten(result)) && self.is_below_quorum(&results, others) {
            self.ask_again(&mut results, step, asks).await;
        }
        results
    }

    fn is_below_quorum(&self, results: &[(usize, Result<Answer, MemberError>)], others: &[usize]) -> bool {
        let answered = results.iter().filter(|(_, result)| result.is_ok()).map(|(index, _)| *index);
        let participants: Vec<usize> = others.iter().copied().chain(answered).collect();
        self.roster.check_quorum(&self.participation_of(&participants)).is_err()
    }

    /// Members that have only forgotten the session (it was idle for longer than they keep one) read it again at once,
    /// since without them the step fails. With a quorum left they come back beside the steps, like every lost member.
    /// What is asked is about the tokens of this step, wherever the reading begins.
    async fn ask_again(
        &mut self,
        results: &mut [(usize, Result<Answer, MemberError>)],
        step: Range<usize>,
        asks: &BTreeMap<usize, Ask>,
    ) {
        let forgotten = results.iter_mut().filter(|(_, result)| is_forgotten(result));
        let (roster, transcript, terms) = (&self.roster, &self.transcript, self.terms);
        let again = forgotten.map(|(index, result)| {
            let step = step.clone();
            async move {
                let id = roster.next_session.fetch_add(1, Ordering::Relaxed);
                let seat = &roster.seats[*index];
                let ask = asks.get(index).cloned().unwrap_or(Ask::Nothing);
                match MemberSession::read_again(seat, id, transcript, terms, step, ask).await {
                    Ok((session, answer)) => {
                        *result = Ok(answer);
                        Some((*index, session))
                    }
                    Err(error) => {
                        *result = Err(error);
                        None
                    }
                }
            }
        });
        for (index, session) in join_all(again).await.into_iter().flatten() {
            self.places[index] = Place::InStep(session);
        }
    }

    /// The most tokens of one feed that every member in step takes with this ask.
    pub(crate) fn max_feed_tokens(&mut self, ask: &Ask) -> usize {
        let sessions = self.places.iter_mut().filter_map(Place::in_step);
        sessions.map(|session| session.max_feed_tokens(ask)).min().unwrap_or(1)
    }

    /// Who is in step and who is not, and why.
    pub(crate) fn participation_of(&self, participants: &[usize]) -> Participation {
        let mut participation = Participation::default();
        for (index, (seat, place)) in self.roster.seats.iter().zip(&self.places).enumerate() {
            let name = seat.member.name().to_owned();
            if participants.contains(&index) {
                participation.participants.push(name);
            } else {
                let reason = place.reason(&seat.member.presence().borrow());
                participation.missing.push(MissingMember { name, reason });
            }
        }
        participation
    }

    fn first_place(&self, index: usize) -> Place {
        let seat = &self.roster.seats[index];
        let presence = seat.member.presence();
        let presence = presence.borrow();
        if presence.is_up() {
            let id = self.roster.next_session.fetch_add(1, Ordering::Relaxed);
            return match MemberSession::open(seat, id, &self.transcript, self.terms) {
                Ok(session) => Place::InStep(session),
                Err(error) => Place::Out { reason: error.to_string() },
            };
        }
        self.way_back(index, presence.reason().to_owned(), Duration::ZERO)
    }

    fn way_back(&self, index: usize, reason: String, delay: Duration) -> Place {
        match self.rejoin {
            Rejoin::Never => Place::Out { reason },
            Rejoin::Allowed => {
                let seat = &self.roster.seats[index];
                let way = CatchUp::start(&self.roster, seat, &self.transcript, self.terms, delay);
                Place::CatchingUp { reason, way }
            }
        }
    }

    fn welcome_back(&mut self) {
        for (seat, place) in self.roster.seats.iter().zip(&mut self.places) {
            if place.arrive() {
                tracing::info!(
                    member = seat.member.name(),
                    position = self.transcript.len(),
                    "back in the session"
                );
            }
        }
    }

    fn settle(
        &mut self,
        results: Vec<(usize, Result<Answer, MemberError>)>,
        others: &[usize],
    ) -> Result<StepAnswers, StepError> {
        let mut answers = Vec::new();
        let mut failures = Vec::new();
        for (index, result) in results {
            match result {
                Ok(answer) => answers.push((index, answer)),
                Err(error) => {
                    self.lose(index, &error);
                    failures.push(error);
                }
            }
        }
        let answered = answers.iter().map(|(index, _)| *index);
        let mut participants: Vec<usize> = others.iter().copied().chain(answered).collect();
        participants.sort_unstable();
        let participation = self.participation_of(&participants);
        if failures.len() == self.places.len()
            && let Some(refusal) = refusal_of_all(&failures)
        {
            return Err(StepError::Refused(refusal));
        }
        match self.roster.check_quorum(&participation) {
            Ok(()) => Ok(StepAnswers { answers, participants, participation, _budget: None }),
            Err(error) if are_exhausted(&failures) => Err(StepError::Exhausted(error)),
            Err(error) => Err(StepError::BelowQuorum(error)),
        }
    }

    fn lose(&mut self, index: usize, error: &MemberError) {
        let name = self.roster.seats[index].member.name();
        // A lost link is logged once where it is lost, not once for every session on it.
        match error {
            MemberError::Lost { .. } => tracing::debug!(member = name, %error, "out of the session"),
            _ => tracing::warn!(member = name, %error, "out of the session"),
        }
        self.places[index] = match self.losses[index].count(error) {
            Return::Never(reason) => Place::Out { reason },
            Return::After(delay) => self.way_back(index, error.to_string(), delay),
        };
    }
}

fn is_forgotten(result: &Result<Answer, MemberError>) -> bool {
    *result == Err(MemberError::UnknownSession)
}

/// The first sentence of members that all refused.
fn refusal_of_all(failures: &[MemberError]) -> Option<String> {
    let refusals = failures.iter().map(|failure| match failure {
        MemberError::Refused { message } => Some(message.clone()),
        _ => None,
    });
    refusals.collect::<Option<Vec<_>>>()?.into_iter().next()
}

fn are_exhausted(failures: &[MemberError]) -> bool {
    let mut all = failures.iter();
    !failures.is_empty() && all.all(|failure| matches!(failure, MemberError::Exhausted { .. }))
}
