//! A generation by beam search: every sequence that is kept is a session of its own at every member, and all of them take
//! their steps together.
//!
//! Knows nothing about which sequences are worth keeping, or what is told of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use chorus_proto::v1::{Hypothesis, MissingMember, Participation, generation_end::Reason};
use chorus_text::Vocabulary;
use futures::future::try_join_all;
use tonic::Status;
use tracing::Instrument as _;

use super::call::Call;
use super::leaders::{self, Search};
use super::opening::Opening;
use super::prompt::Prompt;
use super::seen::Seen;
use super::sound::make_of_rows;
use super::text::GeneratedText;
use crate::beam_search::{BeamSearch, Continuation, Finish, Found, Kept};
use crate::ensemble::{Ensemble, step_status};
use crate::fusion::certificate::{Leader, Places};
use crate::fusion::{Candidate, FuseError, Fused, Row};
use crate::plan::{Ask, Plan};
use crate::request::{Beam, Generation};
use crate::session::{EnsembleSession, Rejoin, StepAnswers};
use crate::telemetry::Progress;

/// What a search found.
pub(super) struct Searched {
    /// Best first, each with its text.
    pub(super) found: Vec<Found<Draft>>,
    /// Who took part in each step.
    pub(super) steps: Vec<Participation>,
    /// Tokens of the prompt that nobody had to read.
    pub(super) cached_prompt_tokens: u32,
}

/// The text of a sequence so far.
#[derive(Clone)]
pub(super) struct Draft {
    stream: GeneratedText,
    certain: String,
}

/// A sequence that is kept.
struct Sequence {
    session: EnsembleSession,
    /// What its session has not read yet.
    unread: Vec<u32>,
    draft: Draft,
    seen: Seen,
}

/// One step of one sequence.
struct Step {
    continuations: Vec<Continuation>,
    participation: Participation,
}

/// What all sequences of a search have in common.
struct Terms<'a> {
    ensemble: &'a Ensemble,
    generation: &'a Arc<Generation>,
    vocabulary: &'a Vocabulary,
    plan: Plan,
    leaders: usize,
}

/// Searches to the end. A member that is lost on the way stays out, for all sequences, so that these are always compared by
/// what the same members say.
///
/// # Errors
/// The members can't go on.
pub(super) async fn search(
    ensemble: &Ensemble,
    generation: &Arc<Generation>,
    beam: Beam,
    vocabulary: &Vocabulary,
    call: Call,
    progress: &mut Progress,
) -> Result<Searched, Status> {
    let plan = generation.plan(vocabulary.len() as usize);
    let terms = Terms { ensemble, generation, vocabulary, plan, leaders: beam.leaders() as usize };
    let mut search = BeamSearch::new(beam, generation.max_tokens as usize);
    let (mut first, mut prompt) = terms.first(call);
    let unread = prompt.read_to_parting(&mut first.session, &generation.prompt).await?;
    first.unread = unread.to_vec();
    let mut sequences = vec![first];
    let mut steps = Vec::new();
    while !sequences.is_empty() {
        let span = progress.ask(plan.kind());
        let (continuations, participation) = terms.step(&mut sequences).instrument(span).await?;
        progress.stepped();
        if let Some(first) = sequences.first_mut() {
            prompt.keep_once(&mut first.session);
        }
        steps.push(participation);
        let kept = search.advance(continuations, |parent, id| terms.read(&sequences[parent].draft, id));
        sequences = branch(sequences, kept);
    }
    Ok(Searched { found: search.into_found(), steps, cached_prompt_tokens: prompt.cached_tokens() })
}

impl Terms<'_> {
    fn first(&self, call: Call) -> (Sequence, Prompt) {
        let Generation { prompt, stop, fusing, .. } = &**self.generation;
        let Self { ensemble, vocabulary, plan, .. } = *self;
        let opening = Opening { ensemble, vocabulary, call, fusing, plan, rejoin: Rejoin::Never };
        let (session, prompted) = opening.begin_with_prompt(prompt, &BTreeMap::new());
        let stream = GeneratedText::new(self.vocabulary, prompt, stop);
        let sequence = Sequence {
            session,
            unread: Vec::new(),
            draft: Draft { stream, certain: String::new() },
            seen: Seen::new(self.generation),
        };
        (sequence, prompted)
    }

    /// What may follow each sequence, all by the same members.
    async fn step(
        &self,
        sequences: &mut [Sequence],
    ) -> Result<(Vec<Vec<Continuation>>, Participation), Status> {
        loop {
            let steps = try_join_all(sequences.iter_mut().map(|sequence| self.step_of(sequence))).await?;
            let missing = missing(&steps);
            if steps.iter().all(|step| step.participation.missing.len() == missing.len()) {
                let participation = steps.first().map(|step| step.participation.clone()).unwrap_or_default();
                return Ok((steps.into_iter().map(|step| step.continuations).collect(), participation));
            }
            // Somebody was lost by some sequences only: the others are asked again as they stand, without that member.
            let places = self.ensemble.names.iter().enumerate();
            let lost = places.filter_map(|(place, name)| Some((place, missing.get(name.as_str())?.as_str())));
            let lost: Vec<(usize, &str)> = lost.collect();
            sequences.iter_mut().for_each(|sequence| sequence.session.leave_out(lost.iter().copied()));
        }
    }

    async fn step_of(&self, sequence: &mut Sequence) -> Result<Step, Status> {
        let tokens = std::mem::take(&mut sequence.unread);
        match self.plan {
            Plan::Certified { k, log_threshold } => {
                let fusing = &self.generation.fusing;
                let search = Search {
                    fusion: fusing.fusion,
                    weighting: fusing.weighting.clone(),
                    places: Places::Leaders(self.leaders),
                    k,
                    log_threshold,
                    vocabulary_size: self.vocabulary.len() as usize,
                };
                let lead = leaders::find(&mut sequence.session, &tokens, &search).await?;
                let continuation = |leader: &Leader| {
                    // Of all leaders the log-probability is known.
                    let log_prob = leader.log_prob.unwrap_or(f64::NEG_INFINITY);
                    Continuation { id: leader.id, log_prob, bent: log_prob, of_members: Vec::new() }
                };
                let continuations = lead.leaders.iter().map(continuation).collect();
                Ok(Step { continuations, participation: lead.participation })
            }
            // No search has the others; rows answer everything.
            Plan::Dense(_) | Plan::Targets | Plan::Drawn => self.step_by_rows(sequence, &tokens).await,
        }
    }

    async fn step_by_rows(&self, sequence: &mut Sequence, tokens: &[u32]) -> Result<Step, Status> {
        let ask = Ask::next_row(self.generation.fusing.rows.format);
        let answers = sequence.session.step(tokens, &ask).await.map_err(|error| step_status(&error))?;
        let numbers = self.vocabulary.len() as usize * answers.answers.len();
        let (generation, seen, leaders) = (Arc::clone(self.generation), sequence.seen.clone(), self.leaders);
        let made = move |answers: &StepAnswers| continuations(&generation, seen.as_slice(), leaders, answers);
        let (continuations, answers) = make_of_rows(&mut sequence.session, answers, numbers, made).await?;
        Ok(Step { continuations, participation: answers.participation })
    }

    /// The text with one token more, and whether it ends there.
    fn read(&self, before: &Draft, id: u32) -> (Draft, Option<Finish>) {
        let mut draft = before.clone();
        if self.ensemble.roster.is_end_token(id, self.vocabulary.fingerprint()) {
            return (draft, Some(Finish::EndToken));
        }
        let released = draft.stream.push(id);
        draft.certain.push_str(&released.text);
        (draft, released.stop.map(|_| Finish::StopString))
    }
}

impl Draft {
    /// The whole text, and whether it ended with a stop string that only its end made certain.
    fn finish(mut self) -> (String, bool) {
        let released = self.stream.finish();
        self.certain.push_str(&released.text);
        (self.certain, released.stop.is_some())
    }
}

/// The members that are missing from any of these steps, with the reasons.
fn missing(steps: &[Step]) -> BTreeMap<String, String> {
    let missing = steps.iter().flat_map(|step| &step.participation.missing);
    missing.map(|MissingMember { name, reason, .. }| (name.clone(), reason.clone())).collect()
}

/// The sequences that go on. A session branches where several of them continue the same one.
fn branch(before: Vec<Sequence>, kept: Vec<Kept<Draft>>) -> Vec<Sequence> {
    let mut uses = vec![0_usize; before.len()];
    kept.iter().for_each(|kept| uses[kept.parent] += 1);
    let mut before: Vec<Option<Sequence>> = before.into_iter().map(Some).collect();
    let continued = |Kept { parent, id, text }: Kept<Draft>| {
        uses[parent] -= 1;
        let mut sequence =
            if uses[parent] > 0 { before[parent].as_mut()?.branch() } else { before[parent].take()? };
        sequence.draft = text;
        sequence.unread.push(id);
        sequence.seen.add(id);
        Some(sequence)
    };
    kept.into_iter().filter_map(continued).collect()
}

impl Sequence {
    /// Another one that stands where this one does. All of it is read.
    fn branch(&mut self) -> Self {
        let (draft, seen) = (self.draft.clone(), self.seen.clone());
        Self { session: self.session.fork(), unread: Vec::new(), draft, seen }
    }
}

/// The likeliest tokens after a sequence, from whole rows.
fn continuations(
    generation: &Generation,
    seen: &[u32],
    leaders: usize,
    answers: &StepAnswers,
) -> Result<Vec<Continuation>, FuseError> {
    let Generation { fusing, adjusting, log_probs, .. } = generation;
    let weights = fusing.weighting.among(&answers.participants);
    let mut continuations = answers.fuse(0, &fusing.fusion, &weights, |fused| match fused {
        Fused::Distribution(mut distribution) => {
            let bent = if adjusting.is_none() {
                distribution.top(leaders)
            } else {
                distribution.adjusted(&adjusting.after(seen), |bent| bent.top(leaders))
            };
            let continuation = |Candidate { id, log_prob: bent }: Candidate| {
                let log_prob = distribution.log_prob(id).unwrap_or(f64::NEG_INFINITY);
                Continuation { id, log_prob, bent, of_members: Vec::new() }
            };
            bent.into_iter().map(continuation).collect()
        }
        // A vote is not searched.
        Fused::Winner(_) => Vec::new(),
    })?;
    if *log_probs {
        let rows = answers.rows(0);
        for continuation in &mut continuations {
            let of_member = |(_, row): &(usize, Row<'_>)| row.log_prob(continuation.id);
            continuation.of_members = rows.iter().filter_map(of_member).collect();
        }
    }
    Ok(continuations)
}

/// A sequence as it is told.
pub(super) fn hypothesis(found: Found<Draft>) -> Hypothesis {
    let Found { tokens, score, finish, text } = found;
    let (text, stopped) = text.finish();
    let reason = match finish {
        Finish::EndToken => Reason::EndToken,
        Finish::StopString => Reason::StopString,
        Finish::MaxTokens if stopped => Reason::StopString,
        Finish::MaxTokens => Reason::MaxTokens,
    };
    Hypothesis {
        text,
        log_prob: tokens.iter().map(|token| token.log_prob).sum(),
        tokens: tokens.into_iter().map(|token| token.id).collect(),
        score,
        reason: reason.into(),
    }
}
