//! A device that tests can break and mend while it runs: a predictor whose manner is set from outside.
#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

use bytes::Bytes;
use chorus_simd::{Room, norm};

use crate::{
    predictor::{Prediction, Predictor, PredictorError, Restored, Row},
    probe::Golden,
    scripted_row::{KeptRow, read_tokens},
};

pub(crate) const VOCABULARY: usize = 16;

/// How it computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Manner {
    Right,
    /// Every logit is NaN.
    NotFinite,
    /// One logit after so many tokens is another number.
    Off {
        position: usize,
        token: usize,
        by: f32,
    },
    /// Its norms are not those of its rows.
    WrongNorm,
    /// It computes and answers nothing.
    Mute,
    Error,
    Panic,
    /// Its forwards do not end before it gets another manner.
    Stuck,
    /// Only what it computes early does not.
    StuckEarly,
    /// What it computes early takes so long.
    SlowEarly(Duration),
}

/// Its states are the tokens; its logits a function of them.
pub(crate) struct ScriptedDevice {
    manners: Manners,
    /// Forwards whose second half is to come; none where it has no halves.
    submitted: Option<VecDeque<Submitted>>,
}

/// A forward with its number, as it was submitted.
type Submitted = (usize, Vec<KeptRow<Vec<u32>>>);

/// What it was told, for one that computes in halves: each with the number of the forward, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Submit(usize),
    Wait,
    Collect(usize),
    /// As a whole.
    Forward(usize),
    /// A part of what can be computed early.
    Early,
}

/// Sets how a device computes, and tells what it did.
#[derive(Clone)]
pub(crate) struct Manners(Arc<(Mutex<Script>, Condvar)>);

struct Script {
    manner: Manner,
    /// How many forwards have begun.
    forwards: usize,
    told: Vec<Told>,
    /// How many parts it can compute early after each forward, and how many of them are left.
    early: usize,
    early_left: usize,
    /// That of the next half or whole, and of no other.
    once: Option<Manner>,
}

impl Manners {
    pub(crate) fn set(&self, manner: Manner) {
        self.0.0.lock().unwrap().manner = manner;
        self.0.1.notify_all();
    }

    /// For the next whole forward or second half alone.
    pub(crate) fn set_once(&self, manner: Manner) {
        self.0.0.lock().unwrap().once = Some(manner);
    }

    /// Has it find so much to compute early after each forward.
    pub(crate) fn set_early(&self, parts: usize) {
        self.0.0.lock().unwrap().early = parts;
    }

    /// Waits until all of it is computed.
    pub(crate) fn wait_for_early(&self) {
        drop(self.0.1.wait_while(self.0.0.lock().unwrap(), |script| script.early_left > 0).unwrap());
    }

    /// How many forwards have begun.
    pub(crate) fn forwards(&self) -> usize {
        self.0.0.lock().unwrap().forwards
    }

    /// What it was told since this was asked.
    pub(crate) fn told(&self) -> Vec<Told> {
        std::mem::take(&mut self.0.0.lock().unwrap().told)
    }

    /// Whether states can be read and written.
    fn holds(&self) -> Result<(), PredictorError> {
        if self.0.0.lock().unwrap().manner == Manner::Error { Err("scripted error".into()) } else { Ok(()) }
    }

    /// Counts a forward.
    fn begin(&self) -> usize {
        let mut script = self.0.0.lock().unwrap();
        script.forwards += 1;
        script.early_left = script.early;
        script.forwards
    }

    /// The manner, which is no longer stuck.
    fn manner(&self, told: Told) -> Manner {
        let mut script = self.0.0.lock().unwrap();
        script.told.push(told);
        if !matches!(told, Told::Wait | Told::Early)
            && let Some(once) = script.once.take()
        {
            return once;
        }
        let is_stuck = |manner| match manner {
            Manner::StuckEarly => told == Told::Early,
            manner => manner == Manner::Stuck,
        };
        self.0.1.wait_while(script, |script| is_stuck(script.manner)).unwrap().manner
    }
}

impl ScriptedDevice {
    pub(crate) fn new() -> (Self, Manners) {
        let (told, manner) = (Vec::new(), Manner::Right);
        let script = Script { manner, forwards: 0, told, early: 0, early_left: 0, once: None };
        let manners = Manners(Arc::new((Mutex::new(script), Condvar::new())));
        (Self { manners: manners.clone(), submitted: None }, manners)
    }

    /// One that computes forwards in halves; whole where they have three tokens or more.
    pub(crate) fn in_halves() -> (Self, Manners) {
        let (device, manners) = Self::new();
        (Self { submitted: Some(VecDeque::new()), ..device }, manners)
    }

    /// What it answers about every position of these tokens while it computes right.
    pub(crate) fn reference(tokens: &[u32]) -> Vec<f32> {
        (0..=tokens.len()).flat_map(|position| logits_after(&tokens[..position])).collect()
    }

    /// A golden sequence that it passes only with these very bits.
    pub(crate) fn golden() -> Golden {
        let tokens = Golden::tokens(VOCABULARY);
        let golden = Golden::near(tokens.clone(), Self::reference(&tokens), 1e-3);
        let answers = golden.probe(&mut Self::new().0).unwrap();
        golden.pinned(answers)
    }
}

pub(crate) fn logits_after(tokens: &[u32]) -> Vec<f32> {
    let mix = |seed: u32, &token: &u32| (seed ^ token).wrapping_mul(2_654_435_761).rotate_left(7);
    let seed = tokens.iter().fold(1, mix);
    (0..VOCABULARY as u32).map(|id| (mix(seed, &id) % 1000) as f32 / 100.0).collect()
}

impl Predictor for ScriptedDevice {
    type State = Vec<u32>;

    fn vocabulary_size(&self) -> usize {
        VOCABULARY
    }

    fn fresh_state(&mut self) -> Result<Vec<u32>, PredictorError> {
        Ok(vec![])
    }

    fn snapshot(&self, state: &Vec<u32>) -> Result<Bytes, PredictorError> {
        self.manners.holds()?;
        Ok(state.iter().flat_map(|token| token.to_le_bytes()).collect())
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<Restored<Vec<u32>>, PredictorError> {
        self.manners.holds()?;
        Ok(Ok(snapshot.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)).collect()))
    }

    fn forward(
        &mut self,
        rows: &mut [Row<'_, Vec<u32>>],
        receive: &mut dyn FnMut(Prediction<'_>),
    ) -> Result<(), PredictorError> {
        let forward = self.manners.begin();
        compute(self.manners.manner(Told::Forward(forward)), rows, receive)
    }

    fn has_early_work(&self) -> bool {
        self.manners.0.0.lock().unwrap().early_left > 0
    }

    fn compute_early(&mut self) -> Result<(), PredictorError> {
        if !self.has_early_work() {
            return Ok(());
        }
        let manner = self.manners.manner(Told::Early);
        if let Manner::SlowEarly(takes) = manner {
            thread::sleep(takes);
        }
        let mut script = self.manners.0.0.lock().unwrap();
        let fails = matches!(manner, Manner::Error | Manner::Panic);
        script.early_left = if fails { 0 } else { script.early_left.saturating_sub(1) };
        self.manners.0.1.notify_all();
        drop(script);
        compute(manner, &mut [], &mut |_| {})
    }

    fn submit(&mut self, rows: &mut [Row<'_, Vec<u32>>]) -> Result<bool, PredictorError> {
        let tokens: usize = rows.iter().map(|row| row.tokens.len()).sum();
        let Some(submitted) = self.submitted.as_mut().filter(|_| tokens < 3) else { return Ok(false) };
        let forward = self.manners.begin();
        self.manners.0.0.lock().unwrap().told.push(Told::Submit(forward));
        submitted.push_back((forward, rows.iter().map(KeptRow::of).collect()));
        rows.iter_mut().for_each(|row| row.state.extend(row.tokens));
        Ok(true)
    }

    fn wait(&mut self) -> Result<(), PredictorError> {
        self.manners.manner(Told::Wait);
        Ok(())
    }

    fn collect(&mut self, receive: &mut dyn FnMut(Prediction<'_>)) -> Result<(), PredictorError> {
        let (forward, mut rows) = self.submitted.as_mut().and_then(VecDeque::pop_front).unwrap();
        let mut rows: Vec<_> = rows.iter_mut().map(KeptRow::row).collect();
        compute(self.manners.manner(Told::Collect(forward)), &mut rows, receive)
    }
}

fn compute(
    manner: Manner,
    rows: &mut [Row<'_, Vec<u32>>],
    receive: &mut dyn FnMut(Prediction<'_>),
) -> Result<(), PredictorError> {
    match manner {
        Manner::Error => return Err("scripted error".into()),
        Manner::Panic => panic!("scripted panic"),
        _ => {}
    }
    for (index, row) in rows.iter_mut().enumerate() {
        let asked = (row.want, row.tokens, row.reduction);
        read_tokens(row, |offset, tokens| {
            let mut logits = logits_after(tokens);
            match manner {
                Manner::Mute => return,
                Manner::NotFinite => logits.fill(f32::NAN),
                Manner::Off { position, token, by } if position == tokens.len() => logits[token] += by,
                _ => {}
            }
            let mut norm = norm(&logits);
            if manner == Manner::WrongNorm {
                norm.log_sum += 0.1;
            }
            receive(Prediction::reduced((index, offset), (&logits, norm), asked, &mut Room::default()));
        });
    }
    Ok(())
}
