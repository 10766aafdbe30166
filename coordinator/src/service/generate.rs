//! `Generate`: step by step until a limit, a stop string or an end token.
//!
//! Knows nothing about how members are reached or come back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chorus_proto::status;
use chorus_proto::v1::{
    ErrorCode, GenerateReply, GeneratedToken, GenerationEnd, MemberLogProb, Participation, Votes,
    generation_end::Reason,
};
use chorus_text::Vocabulary;
use tokio::sync::mpsc;
use tonic::Status;

use super::deadline::Deadline;
use super::participation::Attendance;
use super::text::GeneratedText;
use crate::ensemble::{Admission, Ensemble, compute, fuse_status, shutting_down, step_status};
use crate::fusion::Fused;
use crate::request::Generation;
use crate::sampling::uniform;
use crate::session::{EnsembleSession, Rejoin, StepAnswers};

/// How long a client may leave its messages unread before the work for it ends.
const READER_PATIENCE: Duration = Duration::from_secs(60);

type Replies = mpsc::Sender<Result<GenerateReply, Status>>;

/// One generation in progress.
struct Run<'a> {
    ensemble: &'a Arc<Ensemble>,
    generation: Arc<Generation>,
    vocabulary: Vocabulary,
    seed: u64,
    text: GeneratedText,
    attendance: Attendance,
    replies: &'a Replies,
}

/// Generates until the end and says the last word. Dropped or finished, the sessions close and the place is free.
pub(super) async fn run(
    ensemble: Arc<Ensemble>,
    generation: Generation,
    vocabulary: Vocabulary,
    replies: Replies,
    deadline: Deadline,
    _admission: Admission,
) {
    // Kept for the last word, which must reach even a client that left no room for anything else.
    let Ok(last_word) = replies.clone().reserve_owned().await else {
        return;
    };
    let result = tokio::select! {
        // What is finished is finished, whoever else calls.
        biased;
        result = generate(&ensemble, generation, vocabulary, &replies) => result,
        // A client that hangs up ends the work wherever it stands.
        () = replies.closed() => {
            tracing::debug!("the client hung up");
            return;
        }
        status = deadline.passed() => Err(status),
        () = ensemble.stop.cancelled() => Err(shutting_down()),
    };
    last_word.send(result);
}

async fn generate(
    ensemble: &Arc<Ensemble>,
    generation: Generation,
    vocabulary: Vocabulary,
    replies: &Replies,
) -> Result<GenerateReply, Status> {
    let seats = ensemble.roster.seats.iter();
    let run = Run {
        ensemble,
        seed: seed(&generation),
        text: GeneratedText::new(&vocabulary, &generation.prompt, &generation.stop),
        attendance: Attendance::new(seats.map(|seat| seat.member.name().to_owned())),
        generation: Arc::new(generation),
        vocabulary,
        replies,
    };
    run.until_the_end().await
}

/// The seed of a generation: its own, or one that every JSON reader keeps exactly. A vote draws nothing and has none.
fn seed(generation: &Generation) -> u64 {
    if !generation.fusion.rule.yields_distribution() {
        return 0;
    }
    generation.seed.unwrap_or_else(|| rand::random::<u64>() >> (u64::BITS - f64::MANTISSA_DIGITS))
}

impl Run<'_> {
    /// Sends every token; gives the last message.
    async fn until_the_end(mut self) -> Result<GenerateReply, Status> {
        let roster = &self.ensemble.roster;
        let patience = self.ensemble.patience();
        let mut session =
            EnsembleSession::begin(roster, &self.vocabulary, patience, Rejoin::Allowed, &BTreeMap::new());
        let ask = self.generation.plan().last;
        let mut tokens = self.generation.prompt.clone();
        for index in 0..self.generation.max_tokens {
            let answers = session.step(&tokens, ask).await;
            let answers = answers.map_err(|error| step_status(&error))?;
            self.attendance.record(&answers.participation);
            let (token, participation) = self.choose(answers, index).await?;
            let id = token.id;
            if let Some(reason) = self.send(token, participation).await? {
                return Ok(self.end(reason, index + 1));
            }
            tokens = vec![id];
        }
        let generated = self.generation.max_tokens;
        Ok(self.end(Reason::MaxTokens, generated))
    }

    async fn choose(
        &self,
        answers: StepAnswers,
        index: u32,
    ) -> Result<(GeneratedToken, Participation), Status> {
        let (generation, seed) = (Arc::clone(&self.generation), self.seed);
        let vocabulary = self.vocabulary.len() as usize;
        let numbers = vocabulary * answers.answers.len();
        let names: Vec<_> = answers.participation.participants.clone();
        compute(numbers, move || {
            let token = choose(&generation, seed, index, &answers, names);
            (token, answers.participation)
        })
        .await
        .and_then(|(token, participation)| {
            let token = token.map_err(|error| fuse_status(error, &participation))?;
            Ok((token, participation))
        })
    }

    /// Sends a token with the text that it makes certain; says why it was the last where it was.
    async fn send(
        &mut self,
        token: GeneratedToken,
        participation: Participation,
    ) -> Result<Option<Reason>, Status> {
        let is_end = self.ensemble.roster.is_end_token(token.id, self.vocabulary.fingerprint());
        let (text, end) = if is_end {
            (String::new(), Some(Reason::EndToken))
        } else {
            let released = self.text.push(token.id);
            (released.text, released.stop.map(|_| Reason::StopString))
        };
        let reply = GenerateReply { token: Some(token), text, participation: Some(participation), end: None };
        match self.replies.send_timeout(Ok(reply), READER_PATIENCE).await {
            Ok(()) => Ok(end),
            Err(_) => Err(status(
                ErrorCode::DeadlineExceeded,
                format!("the client read no message for {} s", READER_PATIENCE.as_secs()),
            )),
        }
    }

    fn end(mut self, mut reason: Reason, generated_tokens: u32) -> GenerateReply {
        let released = self.text.finish();
        if released.stop.is_some() {
            reason = Reason::StopString;
        }
        let prompt_tokens = u32::try_from(self.generation.prompt.len()).unwrap_or(u32::MAX);
        GenerateReply {
            token: None,
            text: released.text,
            participation: Some(self.attendance.whole()),
            end: Some(GenerationEnd {
                reason: reason.into(),
                prompt_tokens,
                generated_tokens,
                seed: self.seed,
                rule: chorus_proto::v1::Rule::from(self.generation.fusion.rule).into(),
            }),
        }
    }
}

/// Fuses the answers and takes the next token; `names` are the participants'.
fn choose(
    generation: &Generation,
    seed: u64,
    index: u32,
    answers: &StepAnswers,
    names: Vec<String>,
) -> Result<GeneratedToken, crate::fusion::FuseError> {
    let mut token = GeneratedToken { index, ..GeneratedToken::default() };
    match answers.fuse(0, &generation.fusion, &generation.weights)? {
        Fused::Distribution(distribution) => {
            token.id = generation.sampling.choose(&distribution, uniform(seed, index));
            token.log_prob = generation.log_probs.then(|| distribution.log_prob(token.id)).flatten();
        }
        Fused::Winner(winner) => {
            token.id = winner.id;
            token.votes =
                Some(Votes { count: winner.votes, by_weighted_average: winner.by_weighted_average });
        }
    }
    if generation.log_probs {
        let rows = names.into_iter().zip(answers.rows(0));
        let of_member = rows
            .filter_map(|(name, (_, row))| Some(MemberLogProb { name, log_prob: row.log_prob(token.id)? }));
        token.members = of_member.collect();
    }
    Ok(token)
}
