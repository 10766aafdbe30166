//! A scripted replica for tests: a small made-up model in this process that answers, waits, fails or dies as told.
//!
//! Its distributions depend on everything that a session has read, so a mistake in feeding shows in the numbers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chorus_proto::v1::{self, ModelCard, RowFormat, Start, WorkerLimits, start};
use chorus_simd::norm;
use chorus_text::Vocabulary;
use futures::future::{self, BoxFuture, FutureExt};
use tokio::sync::watch;

use crate::plan::{Ask, PlanKind, Positions};
use crate::replica::{Answer, Answered, Feed, Origin, Presence, Replica, ReplicaError, SessionId};
use crate::rows::Rows;
use crate::snapshot::Snapshot;
use crate::tops::{TopParts, TopShape, Tops};
use crate::traffic::TrafficCounts;

/// What a replica does with a feed.
pub(crate) enum Act {
    Answer,
    AnswerAfter(Duration),
    /// Never answers.
    Hang,
    Fail(ReplicaError),
    /// Answers what this makes of the true answer.
    Lie(fn(Answer) -> Answer),
    /// Its process is gone, and all its sessions.
    Die,
    /// It stops after it has handed its sessions over.
    Leave,
}

/// Decides by the number of tokens that the session will have read.
type Script = Box<dyn FnMut(usize) -> Act + Send>;

/// The made-up model: logits from a hash of the seed and all tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScriptedModel {
    pub(crate) seed: u64,
    pub(crate) vocabulary_size: usize,
    pub(crate) style: Style,
}

/// What its distributions are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Flat, and no two members agree about anything.
    Noise,
    /// As of language: a token's probability falls with a power of its rank, at some positions steeply and at others not,
    /// and the members rank alike.
    Language,
    /// All logits are among three values, the same for all members: nearly everything is a tie.
    Ties,
}

pub(crate) struct ScriptedReplica {
    address: String,
    pub(crate) model: ScriptedModel,
    presence: watch::Sender<Presence>,
    card: ModelCard,
    state: Mutex<State>,
    open: watch::Sender<usize>,
}

struct State {
    script: Script,
    sessions: HashMap<SessionId, Held>,
    /// Everything that any session has read, closed ones too.
    histories: HashMap<SessionId, Vec<u32>>,
    feeds: Vec<usize>,
    starts: u32,
    late: usize,
    silence: Duration,
    handovers: HashMap<SessionId, Snapshot>,
    timeouts: Vec<Duration>,
    discredited: usize,
    asks: Vec<Ask>,
}

#[derive(Default)]
struct Held {
    step: u64,
    tokens: Vec<u32>,
}

impl ScriptedModel {
    pub(crate) fn logits(&self, prefix: &[u32]) -> Vec<f32> {
        let ids = 0..self.vocabulary_size as u64;
        match self.style {
            Style::Noise => {
                let hash = hash(self.seed, prefix);
                ids.map(|id| (mix(hash ^ (id << 32)) % 10_000) as f32 / 1_500.0).collect()
            }
            Style::Language => {
                let (common, own) = (hash(0, prefix), hash(self.seed, prefix));
                // From the flat (half of the tokens make most of the mass) to the nearly certain.
                let power = 0.9 + (common % 1000) as f32 / 1000.0 * 1.6;
                let logit = |id: u64| {
                    let rank = 1 + mix(common ^ (id << 32)) % ids.end;
                    let noise = (mix(own ^ (id << 32)) % 1000) as f32 / 1000.0;
                    noise - power * (rank as f32).ln()
                };
                ids.clone().map(logit).collect()
            }
            Style::Ties => {
                let hash = hash(0, prefix);
                ids.map(|id| (mix(hash ^ (id << 32)) % 3) as f32).collect()
            }
        }
    }

    /// The rows for these prefixes.
    pub(crate) fn rows<'a>(&self, prefixes: impl Iterator<Item = &'a [u32]>) -> Rows {
        let rows: Vec<Vec<f32>> = prefixes.map(|prefix| self.logits(prefix)).collect();
        let norms = rows.iter().map(|row| norm(row)).collect();
        Rows::of_values(&rows.concat(), norms, self.vocabulary_size).unwrap()
    }

    pub(crate) fn answer(&self, ask: &Ask, tokens: &[u32], fed: usize) -> Answer {
        let before = tokens.len() - fed;
        let each = || (before..tokens.len()).map(|end| &tokens[..end]);
        let next = || self.logits(tokens);
        match ask {
            Ask::Nothing => Answer::Advanced,
            Ask::Logits { positions: Positions::Next, format } => {
                assert_eq!(*format, RowFormat::F32, "not scripted");
                Answer::Rows(self.rows([tokens].into_iter()))
            }
            Ask::Logits { positions: Positions::Each, .. } => Answer::Rows(self.rows(each())),
            Ask::Targets => {
                let log_prob = |(prefix, target): (&[u32], &u32)| {
                    let row = self.logits(prefix);
                    norm(&row).log_prob(row[*target as usize])
                };
                Answer::Targets(each().zip(&tokens[before..]).map(log_prob).collect())
            }
            Ask::Top { positions: Positions::Next, .. } => self.tops(ask, &[tokens], None),
            Ask::Top { positions: Positions::Each, .. } => {
                self.tops(ask, &each().collect::<Vec<_>>(), Some(&tokens[before..]))
            }
            Ask::Ids(ids) => {
                let row = next();
                let logits = ids.iter().map(|id| row[*id as usize]).collect();
                Answer::Ids { logits, norm: norm(&row) }
            }
            Ask::Draw { uniform } => {
                let row = next();
                Answer::Drawn(chorus_simd::draw(&row, norm(&row), *uniform) as u32)
            }
        }
    }

    /// By selecting from whole rows.
    fn tops(&self, ask: &Ask, prefixes: &[&[u32]], targets: Option<&[u32]>) -> Answer {
        let Ask::Top { k, log_threshold, .. } = *ask else { panic!("{ask:?}") };
        let mut parts = TopParts::default();
        for prefix in prefixes {
            let row = self.logits(prefix);
            let norm = norm(&row);
            let is_above = |id: &u32| {
                log_threshold.is_some_and(|threshold| norm.log_prob(row[*id as usize]) > threshold)
            };
            let mut ids: Vec<u32> = (0..row.len() as u32).collect();
            let above = ids.iter().filter(|id| is_above(id)).count();
            let count = above.max(k as usize);
            if (1..ids.len()).contains(&count) {
                ids.select_nth_unstable_by(count - 1, |a, b| {
                    row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b))
                });
            }
            ids.truncate(count);
            ids.sort_unstable();
            parts.counts.push(ids.len() as u32);
            parts.logits.extend(ids.iter().map(|id| row[*id as usize]));
            parts.norms.push(norm);
            parts.targets.extend(targets.map(|targets| row[targets[parts.counts.len() - 1] as usize]));
            parts.ids.extend(ids);
        }
        let shape = TopShape {
            rows: prefixes.len(),
            k: k as usize,
            log_threshold,
            vocabulary_size: self.vocabulary_size,
            targets: targets.is_some(),
        };
        Answer::Top(Tops::new(parts, shape).unwrap())
    }
}

impl ScriptedReplica {
    pub(crate) fn new(address: &str, seed: u64, vocabulary: &Vocabulary) -> Arc<Self> {
        Self::in_style(Style::Noise, address, seed, vocabulary)
    }

    pub(crate) fn in_style(style: Style, address: &str, seed: u64, vocabulary: &Vocabulary) -> Arc<Self> {
        Arc::new(Self {
            address: address.to_owned(),
            model: ScriptedModel { seed, vocabulary_size: vocabulary.len() as usize, style },
            presence: watch::Sender::new(Presence::Connecting { reason: "not reached yet".to_owned() }),
            card: ModelCard { model_fingerprint: fingerprint(seed), ..card(address, vocabulary) },
            state: Mutex::new(State {
                script: Box::new(|_| Act::Answer),
                sessions: HashMap::new(),
                histories: HashMap::new(),
                feeds: Vec::new(),
                starts: 0,
                late: 0,
                silence: Duration::ZERO,
                handovers: HashMap::new(),
                timeouts: Vec::new(),
                discredited: 0,
                asks: Vec::new(),
            }),
            open: watch::Sender::new(0),
        })
    }

    /// Starts the process (again).
    pub(crate) fn start(&self) {
        let mut state = self.state.lock().unwrap();
        state.starts += 1;
        let incarnation = Arc::from(state.starts.to_string());
        self.presence.send_replace(Presence::Up { incarnation });
    }

    pub(crate) fn die(&self) {
        self.lose_sessions();
        self.presence.send_replace(Presence::Down { reason: "killed".to_owned() });
    }

    /// Its process stops, and hands over what it has.
    pub(crate) fn leave(&self) {
        let mut state = self.state.lock().unwrap();
        let handovers =
            state.sessions.iter().map(|(session, held)| (*session, snapshot(self.model.seed, &held.tokens)));
        state.handovers = handovers.collect();
        drop(state);
        self.die();
    }

    /// What it says of its silence.
    pub(crate) fn is_silent_for(&self, silence: Duration) {
        self.state.lock().unwrap().silence = silence;
    }

    /// For how long the answer to each feed was of use.
    pub(crate) fn timeouts(&self) -> Vec<Duration> {
        self.state.lock().unwrap().timeouts.clone()
    }

    pub(crate) fn follow(&self, script: impl FnMut(usize) -> Act + Send + 'static) {
        self.state.lock().unwrap().script = Box::new(script);
    }

    /// What each session has read, in the order in which they were opened.
    pub(crate) fn histories(&self) -> Vec<Vec<u32>> {
        let state = self.state.lock().unwrap();
        let mut histories: Vec<_> = state.histories.clone().into_iter().collect();
        histories.sort_unstable();
        histories.into_iter().map(|(_, tokens)| tokens).collect()
    }

    /// The number of tokens of every feed.
    pub(crate) fn feeds(&self) -> Vec<usize> {
        self.state.lock().unwrap().feeds.clone()
    }

    /// The ask of every feed that was answered.
    pub(crate) fn asks(&self) -> Vec<Ask> {
        self.state.lock().unwrap().asks.clone()
    }

    /// How often an answer of it turned out to be unsound.
    pub(crate) fn discredited(&self) -> usize {
        self.state.lock().unwrap().discredited
    }

    /// Feeds that were given up at their deadlines.
    pub(crate) fn late_feeds(&self) -> usize {
        self.state.lock().unwrap().late
    }

    /// Resolves when no session is open here.
    pub(crate) async fn until_idle(&self) {
        self.open.subscribe().wait_for(|open| *open == 0).await.unwrap();
    }

    fn lose_sessions(&self) {
        self.state.lock().unwrap().sessions.clear();
        self.open.send_replace(0);
    }

    fn act(&self, tokens: usize) -> Act {
        // The script may look at this member, so it must not run under the lock.
        let mut script = std::mem::replace(&mut self.state.lock().unwrap().script, Box::new(|_| Act::Answer));
        let act = script(tokens);
        self.state.lock().unwrap().script = script;
        act
    }

    fn read(&self, feed: &Feed) -> Answered {
        let mut state = self.state.lock().unwrap();
        state.feeds.push(feed.tokens.len());
        state.asks.push(feed.ask.clone());
        let held = state.sessions.get_mut(&feed.session).unwrap();
        held.step = feed.step;
        held.tokens.extend(&feed.tokens);
        let tokens = held.tokens.clone();
        state.histories.insert(feed.session, tokens.clone());
        let answer = self.model.answer(&feed.ask, &tokens, feed.tokens.len());
        Answered { answer, snapshot: feed.snapshot.then(|| snapshot(self.model.seed, &tokens)) }
    }
}

impl Replica for ScriptedReplica {
    fn address(&self) -> &str {
        &self.address
    }

    fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    fn card(&self) -> Option<Arc<ModelCard>> {
        let reached = self.state.lock().unwrap().starts > 0;
        reached.then(|| Arc::new(self.card.clone()))
    }

    fn open(&self, session: SessionId, origin: Origin<'_>) {
        let mut state = self.state.lock().unwrap();
        assert!(!state.histories.contains_key(&session), "a session number was used twice");
        let tokens = match origin {
            Origin::Start => Some(Vec::new()),
            Origin::Snapshot(snapshot) => Some(tokens_of(snapshot)),
            Origin::Fork(other) => state.sessions.get(&other).map(|held| held.tokens.clone()),
        };
        if let Some(tokens) = tokens {
            state.sessions.insert(session, Held { step: 0, tokens });
        }
        self.open.send_replace(state.sessions.len());
    }

    fn feed(&self, feed: Feed) -> BoxFuture<'static, Result<Answered, ReplicaError>> {
        self.state.lock().unwrap().timeouts.push(feed.timeout);
        let held = {
            let state = self.state.lock().unwrap();
            let held = state.sessions.get(&feed.session);
            held.map(|held| (held.step, held.tokens.len()))
        };
        let Some((step, position)) = held else {
            return future::ready(Err(ReplicaError::UnknownSession)).boxed();
        };
        assert_eq!(feed.step, step + 1, "a step was left out or fed twice");
        match self.act(position + feed.tokens.len()) {
            Act::Answer => future::ready(Ok(self.read(&feed))).boxed(),
            Act::AnswerAfter(delay) => {
                let answer = self.read(&feed);
                async move {
                    tokio::time::sleep(delay).await;
                    Ok(answer)
                }
                .boxed()
            }
            Act::Lie(lie) => {
                let Answered { answer, snapshot } = self.read(&feed);
                future::ready(Ok(Answered { answer: lie(answer), snapshot })).boxed()
            }
            Act::Hang => future::pending().boxed(),
            Act::Fail(error) => future::ready(Err(error)).boxed(),
            Act::Leave => {
                self.leave();
                let reason = "the worker is stopping".to_owned();
                future::ready(Err(ReplicaError::Lost { reason })).boxed()
            }
            Act::Die => {
                self.die();
                let reason = "killed".to_owned();
                future::ready(Err(ReplicaError::Lost { reason })).boxed()
            }
        }
    }

    fn silence(&self) -> Duration {
        self.state.lock().unwrap().silence
    }

    fn late(&self) {
        self.state.lock().unwrap().late += 1;
    }

    fn discredit(&self) {
        self.state.lock().unwrap().discredited += 1;
    }

    fn traffic(&self, _: PlanKind) -> TrafficCounts {
        TrafficCounts::default()
    }

    fn handed_over(&self, session: SessionId) -> Option<Snapshot> {
        self.state.lock().unwrap().handovers.remove(&session)
    }

    fn close(&self, session: SessionId) {
        let mut state = self.state.lock().unwrap();
        state.sessions.remove(&session);
        self.open.send_replace(state.sessions.len());
    }
}

/// Of the model with this seed.
pub(crate) fn fingerprint(seed: u64) -> String {
    format!("scripted {seed}")
}

/// Of a session that has read these tokens; they are its state.
pub(crate) fn snapshot(seed: u64, tokens: &[u32]) -> Snapshot {
    let state: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
    let (checksum, position) = (crc32fast::hash(&state), tokens.len() as u64);
    let model_fingerprint = fingerprint(seed);
    Snapshot::read(v1::Snapshot { position, model_fingerprint, state: state.into(), checksum }).unwrap()
}

fn tokens_of(snapshot: &Snapshot) -> Vec<u32> {
    let (tokens, rest) = snapshot.sealed().state.as_chunks();
    assert!(rest.is_empty());
    tokens.iter().map(|token| u32::from_le_bytes(*token)).collect()
}

pub(crate) fn card(name: &str, vocabulary: &Vocabulary) -> ModelCard {
    ModelCard {
        name: format!("model of {name}"),
        architecture: "scripted".to_owned(),
        vocabulary_size: vocabulary.len(),
        vocabulary_fingerprint: vocabulary.fingerprint().to_owned(),
        start: Some(Start { start: Some(start::Start::ZeroState(true)) }),
        end_token: None,
        parameters: 7,
        device: "paper".to_owned(),
        limits: Some(WorkerLimits {
            max_sessions: 100,
            max_feed_tokens: 4,
            session_ttl_seconds: 60,
            // Fewer than tokens of a feed, so that what is asked about and what is only read differ.
            max_answer_rows: 3,
        }),
        incarnation: "1".to_owned(),
        version: "0".to_owned(),
        model_fingerprint: "scripted".to_owned(),
        open_sessions: 0,
    }
}

fn hash(seed: u64, prefix: &[u32]) -> u64 {
    prefix.iter().fold(mix(seed), |hash, token| mix(hash ^ (u64::from(*token) + 1)))
}

/// The finaliser of splitmix64.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
