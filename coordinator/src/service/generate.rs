//! A generation: step by step until a limit, a stop string or an end token.
//!
//! Knows nothing about how members are reached or come back, or in how many messages its tokens leave.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use chorus_proto::v1::{
    ErrorCode, GeneratedToken, GenerationEnd, MemberLogProb, Participation, RowFormat, Votes,
    generation_end::Reason,
};
use chorus_text::Vocabulary;
use tonic::Status;
use tracing::Instrument;

use super::call::Call;
use super::choose::choose;
use super::decided::is_decided;
use super::leaders::{Lead, Search};
use super::lists::Lists;
use super::opening::Opening;
use super::participation::{Attendance, expect};
use super::prompt::Prompt;
use super::search::{Searched, hypothesis, search};
use super::seen::Seen;
use super::sound::make_of_rows;
use super::telling::{Chosen, Listener, tell_meanwhile};
use super::text::GeneratedText;
use super::{drawn, evidence, fallback, leaders};
use crate::activity::Pulse;
use crate::beam_search::Continuation;
use crate::ensemble::{Ensemble, step_status};
use crate::failure::status;
use crate::fusion::certificate::Places;
use crate::fusion::{Row, Rule, Scratch, ahead_of, fuse, shares};
use crate::plan::{Ask, Plan};
use crate::replica::Answer;
use crate::request::{Beam, Generation};
use crate::session::{EnsembleSession, Rejoin, StepAnswers};
use crate::telemetry::Progress;
use crate::weights::Weighting;

/// What is known when a generation is over.
pub(super) struct Ending {
    /// Text that was held back until then.
    pub(super) text: String,
    /// Who took part in every token.
    pub(super) participation: Participation,
    pub(super) end: GenerationEnd,
}

/// One generation in progress.
struct Run<'a> {
    /// Whose generation it is.
    ensemble: &'a Arc<Ensemble>,
    pulse: Pulse,
    /// Who answers: that, or its fallback.
    speaker: Arc<Ensemble>,
    generation: Arc<Generation>,
    vocabulary: Vocabulary,
    call: Call,
    seed: u64,
    text: GeneratedText,
    /// The prompt, and what was generated.
    transcript: Vec<u32>,
    /// The tokens that are in it; kept where these are less likely to come again.
    seen: Seen,
    lists: Lists,
    /// The weights, which may follow the text.
    weighting: Weighting,
    attendance: Attendance,
    progress: Progress,
    /// Tokens of the prompt that nobody had to read.
    cached_prompt_tokens: u32,
}

/// Generates until the end. Dropped or finished, the sessions close.
///
/// # Errors
/// The members can't go on, or the listener does not want more.
pub(super) async fn generate(
    ensemble: &Arc<Ensemble>,
    generation: Generation,
    vocabulary: Vocabulary,
    call: Call,
    listener: &mut impl Listener,
) -> Result<Ending, Status> {
    let members = ensemble.roster.members.iter();
    let run = Run {
        ensemble,
        pulse: ensemble.common.activity.begin(call.begun(), generation.beam.is_none()),
        speaker: Arc::clone(ensemble),
        seed: seed(&generation),
        seen: Seen::new(&generation),
        lists: Lists::default(),
        transcript: generation.prompt.clone(),
        weighting: generation.fusing.weighting.clone(),
        text: GeneratedText::new(&vocabulary, &generation.prompt, &generation.stop),
        attendance: Attendance::new(members.map(|member| member.name().to_owned())),
        progress: Progress::new(
            &ensemble.common.answers,
            call.begun(),
            generation.prompt.len(),
            (generation.fusing.fusion.rule, generation.plan(vocabulary.len() as usize).kind()),
        ),
        generation: Arc::new(generation),
        vocabulary,
        call,
        cached_prompt_tokens: 0,
    };
    match run.generation.beam {
        None => run.until_the_end(listener).await,
        Some(beam) => run.by_search(beam, listener).await,
    }
}

/// The seed of a generation: its own, or one that every JSON reader keeps exactly. A vote draws nothing and has none.
fn seed(generation: &Generation) -> u64 {
    if !generation.fusing.fusion.rule.yields_distribution() {
        return 0;
    }
    generation.seed.unwrap_or_else(|| rand::random::<u64>() >> (u64::BITS - f64::MANTISSA_DIGITS))
}

impl Run<'_> {
    async fn until_the_end(mut self, listener: &mut impl Listener) -> Result<Ending, Status> {
        let (mut session, mut prompt) = self.begin();
        let (mut unread, mut untold) = (0, None);
        let (mut reason, mut generated) = (Reason::MaxTokens, self.generation.max_tokens);
        for index in 0..self.generation.max_tokens {
            let span = self.progress.ask(self.generation.plan(self.vocabulary.len() as usize).kind());
            let tokens = self.transcript.get(unread..).unwrap_or_default().to_vec();
            let next = {
                let next = pin!(self.next_token(&mut session, &mut prompt, &tokens, index).instrument(span));
                tell_meanwhile(untold.take(), listener, next).await?
            };
            let (token, participation) = match next {
                Ok(next) => next,
                Err(failure) => {
                    self.fall_back(failure)?;
                    (session, prompt) = self.begin();
                    let transcript = self.transcript.clone();
                    self.next_token(&mut session, &mut prompt, &transcript, index).await?
                }
            };
            prompt.keep_once(&mut session);
            unread = self.transcript.len();
            self.transcript.push(token.id);
            self.seen.add(token.id);
            let (chosen, end) = self.chosen(token, participation);
            untold = Some(chosen);
            if let Some(end) = end {
                (reason, generated) = (end, index + 1);
                break;
            }
        }
        if let Some(last) = untold {
            listener.token(last).await?;
        }
        // The next turn of a conversation goes on from here.
        prompt.keep(&mut session);
        Ok(self.end(reason, generated))
    }

    /// Searches, and hands the best sequence on when it is found.
    async fn by_search(mut self, beam: Beam, listener: &mut impl Listener) -> Result<Ending, Status> {
        let _branches = self.ensemble.common.branches(beam.size).await;
        let searched = self.search(beam).await;
        let Searched { found, steps, cached_prompt_tokens } = match searched {
            Ok(searched) => searched,
            Err(failure) => {
                // Nothing was handed on yet, so all of it is found anew.
                self.fall_back(failure)?;
                self.search(beam).await?
            }
        };
        self.cached_prompt_tokens = cached_prompt_tokens;
        let Some(best) = found.first() else {
            return Err(status(ErrorCode::Internal, "no sequence could be found"));
        };
        let (tokens, generated) = (best.tokens.clone(), u32::try_from(best.tokens.len()).unwrap_or(u32::MAX));
        let mut reason = Reason::MaxTokens;
        for ((index, token), participation) in (0..).zip(tokens).zip(steps) {
            let token = self.found_token(index, token, &participation);
            let (chosen, end) = self.chosen(token, participation);
            listener.token(chosen).await?;
            reason = end.unwrap_or(reason);
        }
        let mut ending = self.end(reason, generated);
        ending.end.hypotheses = found.into_iter().map(hypothesis).collect();
        Ok(ending)
    }

    async fn search(&mut self, beam: Beam) -> Result<Searched, Status> {
        let Self { speaker, generation, vocabulary, call, progress, .. } = self;
        search(speaker, generation, beam, vocabulary, *call, progress).await
    }

    /// A token of a sequence that was found, as it is told.
    fn found_token(&self, index: u32, token: Continuation, participation: &Participation) -> GeneratedToken {
        let Continuation { id, log_prob, of_members, .. } = token;
        if !self.generation.log_probs {
            return GeneratedToken { id, index, ..GeneratedToken::default() };
        }
        let names = &participation.participants;
        let places =
            names.iter().filter_map(|name| self.speaker.names.iter().position(|other| other == name));
        let weights =
            self.weighting.among(&places.clone().collect::<Vec<_>>()).of_all(&places.collect::<Vec<_>>());
        let shares = shares(self.generation.fusing.fusion.rule, &weights).unwrap_or_default();
        let members = names.iter().zip(of_members).zip(shares);
        let members = members
            .map(|((name, log_prob), weight)| MemberLogProb { name: name.clone(), log_prob, weight })
            .collect();
        GeneratedToken { id, index, log_prob: Some(log_prob), members, ..GeneratedToken::default() }
    }

    fn begin(&mut self) -> (EnsembleSession, Prompt) {
        let opening = Opening {
            ensemble: &self.speaker,
            vocabulary: &self.vocabulary,
            call: self.call,
            fusing: &self.generation.fusing,
            plan: self.generation.plan(self.vocabulary.len() as usize),
            rejoin: Rejoin::Allowed,
        };
        let (session, prompt) = opening.begin_with_prompt(&self.transcript, &BTreeMap::new());
        if self.transcript.len() == self.generation.prompt.len() {
            self.cached_prompt_tokens = prompt.cached_tokens();
        }
        (session, prompt)
    }

    /// Goes over to the fallback, which has read nothing yet, for the rest of the generation.
    fn fall_back(&mut self, failure: Status) -> Result<(), Status> {
        self.speaker = fallback::instead(&self.speaker, &self.generation.fusing, failure)?;
        let fusing = self.generation.fusing.alone();
        self.weighting = fusing.weighting.clone();
        self.generation = Arc::new(Generation { fusing, ..Generation::clone(&self.generation) });
        Ok(())
    }

    /// The token that follows what the session has read and `tokens`.
    async fn next_token(
        &mut self,
        session: &mut EnsembleSession,
        prompt: &mut Prompt,
        tokens: &[u32],
        index: u32,
    ) -> Result<(GeneratedToken, Participation), Status> {
        let mut tokens = prompt.read_to_parting(session, tokens).await?;
        if index == 0 && self.weighting.is_adaptive() {
            evidence::read(session, tokens, &mut self.weighting, self.vocabulary.len() as usize).await?;
            tokens = &[];
        }
        let generation = &self.generation;
        match generation.plan(self.vocabulary.len() as usize) {
            Plan::Drawn => {
                let (id, participation) =
                    drawn::draw(session, tokens, &self.weighting, self.seed, index).await?;
                Ok((GeneratedToken { id, index, ..GeneratedToken::default() }, participation))
            }
            Plan::Certified { k, log_threshold } if self.lists.are_due() => {
                let search = Search {
                    fusion: generation.fusing.fusion,
                    weighting: self.weighting.clone(),
                    places: Places::Winner,
                    k,
                    log_threshold,
                    vocabulary_size: self.vocabulary.len() as usize,
                };
                let lead = leaders::find(session, tokens, &search).await?;
                self.lists.were_enough(lead.by_first_lists);
                Ok((winner(generation, index, &lead), lead.participation))
            }
            Plan::Dense(format) => self.of_rows(session, tokens, format, index).await,
            Plan::Certified { .. } => self.of_rows(session, tokens, RowFormat::F32, index).await,
            // No generation has this plan; rows answer everything.
            Plan::Targets => self.of_rows(session, tokens, RowFormat::F32, index).await,
        }
    }

    async fn of_rows(
        &mut self,
        session: &mut EnsembleSession,
        tokens: &[u32],
        format: RowFormat,
        index: u32,
    ) -> Result<(GeneratedToken, Participation), Status> {
        let ask = Ask::next_row(format);
        let answers = if self.generation.wants_a_winner_only() {
            session.step_until(tokens, &ask, |answers, awaited| self.is_decided(answers, awaited)).await
        } else {
            session.step(tokens, &ask).await
        };
        let answers = answers.map_err(|error| step_status(&error))?;
        let numbers = self.vocabulary.len() as usize * answers.answers.len();
        let (generation, seed, weighting) = (Arc::clone(&self.generation), self.seed, self.weighting.clone());
        let seen = self.seen.clone();
        let choose = move |answers: &StepAnswers| {
            let weights = weighting.among(&answers.participants);
            choose(&generation, &weights, seen.as_slice(), seed, index, answers)
        };
        let (mut token, answers) = make_of_rows(session, answers, numbers, choose).await?;
        for candidate in &mut token.candidates {
            candidate.text = self.vocabulary.decode(&[candidate.id]);
        }
        if self.weighting.is_adaptive() {
            let said = answers.rows(0).into_iter();
            let said = said.filter_map(|(index, row)| Some((index, row.log_prob(token.id)?)));
            self.weighting.observe(&said.collect::<Vec<_>>());
        }
        Ok((token, answers.participation))
    }

    /// Whether these rows make a winner that the awaited members can't change.
    fn is_decided(&self, answers: &[(usize, &Answer)], awaited: &[usize]) -> bool {
        let fusion = &self.generation.fusing.fusion;
        let rows = answers.iter().filter_map(|(index, answer)| match answer {
            Answer::Rows(rows) => Some((*index, rows.row(0).ok()?)),
            _ => None,
        });
        let rows: Vec<(usize, Row<'_>)> = rows.collect();
        let answered: Vec<usize> = rows.iter().map(|(index, _)| *index).collect();
        is_decided(&self.weighting, &answered, awaited, |weights| {
            let rows = rows.iter().map(|(index, row)| (weights.of(*index), *row));
            let rows: Vec<(f64, Row<'_>)> = rows.collect();
            Scratch::lent(|scratch| fuse(fusion, &rows, scratch).map(ahead_of)).ok()
        })
    }

    /// A token with the text that it makes certain; and why it is the last where it is.
    fn chosen(
        &mut self,
        token: GeneratedToken,
        mut participation: Participation,
    ) -> (Chosen, Option<Reason>) {
        if Arc::ptr_eq(&self.speaker, self.ensemble) {
            expect(&mut participation, &self.ensemble.names, &self.weighting);
        } else {
            fallback::mark(&mut participation, self.ensemble);
        }
        self.attendance.record(&mut participation);
        self.progress.found(&participation);
        let is_end = self.speaker.roster.is_end_token(token.id, self.vocabulary.fingerprint());
        let (text, end) = if is_end {
            (String::new(), Some(Reason::EndToken))
        } else {
            let released = self.text.push(token.id);
            (released.text, released.stop.map(|_| Reason::StopString))
        };
        self.pulse.token();
        (Chosen { token, text, participation }, end)
    }

    fn end(&mut self, mut reason: Reason, generated_tokens: u32) -> Ending {
        let released = self.text.finish();
        if released.stop.is_some() {
            reason = Reason::StopString;
        }
        let prompt_tokens = u32::try_from(self.generation.prompt.len()).unwrap_or(u32::MAX);
        Ending {
            text: released.text,
            participation: self.attendance.whole(),
            end: GenerationEnd {
                reason: reason.into(),
                prompt_tokens,
                generated_tokens,
                seed: self.seed,
                rule: chorus_proto::v1::Rule::from(self.generation.fusing.fusion.rule).into(),
                cached_prompt_tokens: self.cached_prompt_tokens,
                ..GenerationEnd::default()
            },
        }
    }
}

/// The token that leads.
fn winner(generation: &Generation, index: u32, lead: &Lead) -> GeneratedToken {
    let leader = lead.leaders.first();
    let is_vote = generation.fusing.fusion.rule == Rule::ThresholdVote;
    let votes = leader
        .filter(|_| is_vote)
        .map(|leader| Votes { count: leader.votes, by_weighted_average: leader.votes == 0 });
    GeneratedToken { id: leader.map_or(0, |leader| leader.id), index, votes, ..GeneratedToken::default() }
}
