//! A forward: the jobs that have a part in it, from the rows that are fed to what comes of them. It may be under way while
//! other things happen, and jobs are given up meanwhile.
//!
//! Knows nothing about who computes it, nor about what follows an answer.

use crate::{
    job::{Chunk, Intake, Job},
    operation::SessionKey,
    predictor::{Prediction, Row, Want},
    sessions::Session,
};
use chorus_proto::v1::Failure;
use chorus_simd::Reduction;

/// The jobs of one forward.
#[derive(Debug)]
pub(crate) struct Forward {
    shares: Vec<Share>,
}

/// A job's part.
#[derive(Debug)]
pub(crate) struct Share {
    pub(crate) key: SessionKey,
    /// None once it was given up.
    job: Option<Job>,
    /// Tokens that are fed.
    pub(crate) tokens: usize,
    /// Tokens that the session had consumed before.
    position: u64,
}

/// What a job feeds, what it wants of it, and what of each distribution.
type Fed<'a> = (&'a [u32], Want, Reduction<'a>);

/// Takes in the distributions of one forward, for each of its jobs.
#[derive(Debug)]
pub(crate) struct Intakes<'a>(Vec<Option<Taker<'a>>>);

/// Of one of them.
#[derive(Debug)]
struct Taker<'a> {
    intake: Intake<'a>,
    position: u64,
    tokens: usize,
    /// Distributions that have to come.
    wanted: usize,
}

impl Share {
    /// Of a session that has consumed `position` tokens, and is fed `tokens` more.
    pub(crate) fn new(key: SessionKey, job: Job, tokens: usize, position: u64) -> Self {
        Self { key, job: Some(job), tokens, position }
    }
}

impl Forward {
    pub(crate) fn new(shares: Vec<Share>) -> Self {
        Self { shares }
    }

    /// The sessions' parts in it.
    pub(crate) fn shares(&self) -> impl ExactSizeIterator<Item = &Share> {
        self.shares.iter()
    }

    /// How many tokens are fed.
    pub(crate) fn tokens(&self) -> usize {
        self.shares.iter().map(|share| share.tokens).sum()
    }

    /// The jobs in it.
    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Job> {
        self.shares.iter().filter_map(|share| share.job.as_ref())
    }

    /// Whether any job takes more than this forward.
    pub(crate) fn goes_on(&self) -> bool {
        let goes_on =
            |share: &Share| share.job.as_ref().is_some_and(|job| job.demand().tokens > share.tokens);
        self.shares.iter().any(goes_on)
    }

    /// It begins, for those who trace it.
    pub(crate) fn trace_begin(&mut self) {
        let (sessions, batch_tokens) = (self.shares.len(), self.tokens());
        for Share { job, tokens, .. } in &mut self.shares {
            job.iter_mut().for_each(|job| job.traced().forward(sessions, batch_tokens, *tokens));
        }
    }

    /// What is fed to the sessions, and what takes in what comes of it. None of the jobs was given up yet.
    pub(crate) fn rows<'a, S>(
        &'a mut self,
        sessions: &'a mut [Session<S>],
    ) -> (Vec<Row<'a, S>>, Intakes<'a>) {
        let (mut rows, mut takers) = (Vec::with_capacity(sessions.len()), Vec::with_capacity(sessions.len()));
        for (share, session) in self.shares.iter_mut().zip(sessions) {
            let taker = share.taker().map(|(chunk, taker)| {
                let (tokens, want, reduction) = chunk;
                rows.push(Row { state: &mut session.state, tokens, want, reduction });
                taker
            });
            takers.push(taker);
        }
        (rows, Intakes(takers))
    }

    /// What takes in what comes of it, once it was begun.
    pub(crate) fn intakes(&mut self) -> Intakes<'_> {
        Intakes(self.shares.iter_mut().map(|share| share.taker().map(|(_, taker)| taker)).collect())
    }

    /// Gives up what a session has in it.
    pub(crate) fn give_up(&mut self, key: SessionKey) -> Option<Job> {
        self.shares.iter_mut().find(|share| share.key == key).and_then(|share| share.job.take())
    }

    /// Gives up everything.
    pub(crate) fn give_up_all(&mut self) -> impl Iterator<Item = (SessionKey, Job)> {
        self.shares.iter_mut().filter_map(|share| Some((share.key, share.job.take()?)))
    }

    /// Gives up what a stream has in it.
    pub(crate) fn give_up_stream(&mut self, stream: u64) {
        self.shares.iter_mut().filter(|share| share.key.stream == stream).for_each(|share| share.job = None);
    }

    /// Takes the jobs out as they were before it.
    pub(crate) fn into_jobs(self) -> impl DoubleEndedIterator<Item = (SessionKey, Job)> {
        self.shares.into_iter().filter_map(|share| {
            let mut job = share.job?;
            job.traced().computed();
            Some((share.key, job))
        })
    }

    /// Takes the jobs out that were computed and not given up, with what became of them.
    pub(crate) fn computed(
        self,
        results: Vec<Result<(), Failure>>,
    ) -> impl Iterator<Item = (SessionKey, Job, Result<(), Failure>)> {
        self.shares.into_iter().zip(results).filter_map(|(share, result)| {
            let Share { key, tokens, mut job, .. } = share;
            let mut job = job.take()?;
            job.advance(tokens);
            let is_complete = job.is_complete();
            if is_complete {
                job.traced().complete();
            } else {
                job.traced().computed();
            }
            Some((key, job, result))
        })
    }
}

impl Share {
    /// What it feeds and wants, and what takes that in; none where the job was given up.
    fn taker(&mut self) -> Option<(Fed<'_>, Taker<'_>)> {
        let Self { job, tokens, position, .. } = self;
        let Chunk { tokens, want, reduction, intake } = job.as_mut()?.chunk(*tokens);
        let (count, wanted) = (tokens.len(), want.rows(tokens.len()));
        let taker = Taker { intake, position: *position, tokens: count, wanted };
        Some(((tokens, want, reduction), taker))
    }
}

impl Intakes<'_> {
    /// Takes one distribution in.
    pub(crate) fn receive(&mut self, prediction: &Prediction<'_>) {
        if let Some(Some(taker)) = self.0.get_mut(prediction.row) {
            taker.intake.receive(prediction, taker.position, taker.tokens);
        }
    }

    /// What became of each job, once all is taken in.
    pub(crate) fn finish(self, computed: &Result<(), Failure>) -> Vec<Result<(), Failure>> {
        let result = |taker: Option<Taker<'_>>| match taker {
            Some(taker) => computed.clone().and(taker.intake.finish(taker.wanted)),
            None => computed.clone(),
        };
        self.0.into_iter().map(result).collect()
    }
}
