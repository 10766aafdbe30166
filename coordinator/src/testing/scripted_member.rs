//! A scripted member for tests: a small made-up model in this process that answers, waits, fails or dies as told.
//!
//! Its distributions depend on everything that a session has read, so a mistake in feeding shows in the numbers.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chorus_proto::v1::{ModelCard, Start, WorkerLimits, start};
use chorus_text::Vocabulary;
use futures::future::{self, BoxFuture, FutureExt};
use tokio::sync::watch;

use crate::member::{Answer, Feed, Member, MemberError, Presence, SessionId};
use crate::plan::Ask;
use crate::rows::Rows;

/// What a member does with a feed.
pub(crate) enum Act {
    Answer,
    AnswerAfter(Duration),
    /// Never answers.
    Hang,
    Fail(MemberError),
    /// Its process is gone, and all its sessions.
    Die,
}

/// Decides by the number of tokens that the session will have read.
type Script = Box<dyn FnMut(usize) -> Act + Send>;

/// The made-up model: logits from a hash of the seed and all tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScriptedModel {
    pub(crate) seed: u64,
    pub(crate) vocabulary_size: usize,
}

pub(crate) struct ScriptedMember {
    name: String,
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
}

#[derive(Default)]
struct Held {
    step: u64,
    tokens: Vec<u32>,
}

impl ScriptedModel {
    pub(crate) fn logits(&self, prefix: &[u32]) -> Vec<f32> {
        let hash = prefix.iter().fold(mix(self.seed), |hash, token| mix(hash ^ (u64::from(*token) + 1)));
        let logit = |id: u64| (mix(hash ^ (id << 32)) % 10_000) as f32 / 1_500.0;
        (0..self.vocabulary_size as u64).map(logit).collect()
    }

    /// The rows for these prefixes.
    pub(crate) fn rows<'a>(&self, prefixes: impl Iterator<Item = &'a [u32]>) -> Rows {
        let (mut logits, mut log_sum_exps) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            let row = self.logits(prefix);
            let sum: f64 = row.iter().map(|logit| f64::from(*logit).exp()).sum();
            log_sum_exps.push(sum.ln() as f32);
            logits.extend(row);
        }
        Rows::new(logits, &log_sum_exps, self.vocabulary_size).unwrap()
    }

    pub(crate) fn answer(&self, ask: Ask, tokens: &[u32], fed: usize) -> Answer {
        let before = tokens.len() - fed;
        match ask {
            Ask::Nothing => Answer::Advanced,
            Ask::LogitsNext => Answer::Rows(self.rows([tokens].into_iter())),
            Ask::LogitsEach => Answer::Rows(self.rows((before..tokens.len()).map(|end| &tokens[..end]))),
            Ask::Targets => {
                let rows = self.rows((before..tokens.len()).map(|end| &tokens[..end]));
                let target = |index: usize| rows.row(index).unwrap().log_prob(tokens[before + index]);
                Answer::Targets((0..fed).map(|index| target(index).unwrap()).collect())
            }
        }
    }
}

impl ScriptedMember {
    pub(crate) fn new(name: &str, seed: u64, vocabulary: &Vocabulary) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            model: ScriptedModel { seed, vocabulary_size: vocabulary.len() as usize },
            presence: watch::Sender::new(Presence::Connecting { reason: "not reached yet".to_owned() }),
            card: card(name, vocabulary),
            state: Mutex::new(State {
                script: Box::new(|_| Act::Answer),
                sessions: HashMap::new(),
                histories: HashMap::new(),
                feeds: Vec::new(),
                starts: 0,
                late: 0,
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

    fn read(&self, feed: &Feed) -> Answer {
        let mut state = self.state.lock().unwrap();
        state.feeds.push(feed.tokens.len());
        let held = state.sessions.get_mut(&feed.session).unwrap();
        held.step = feed.step;
        held.tokens.extend(&feed.tokens);
        let tokens = held.tokens.clone();
        state.histories.insert(feed.session, tokens.clone());
        self.model.answer(feed.ask, &tokens, feed.tokens.len())
    }
}

impl Member for ScriptedMember {
    fn name(&self) -> &str {
        &self.name
    }

    fn address(&self) -> &str {
        "nowhere"
    }

    fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    fn card(&self) -> Option<Arc<ModelCard>> {
        let reached = self.state.lock().unwrap().starts > 0;
        reached.then(|| Arc::new(self.card.clone()))
    }

    fn open(&self, session: SessionId) {
        let mut state = self.state.lock().unwrap();
        assert!(!state.histories.contains_key(&session), "a session number was used twice");
        state.sessions.insert(session, Held::default());
        self.open.send_replace(state.sessions.len());
    }

    fn feed(&self, feed: Feed) -> BoxFuture<'static, Result<Answer, MemberError>> {
        let held = {
            let state = self.state.lock().unwrap();
            let held = state.sessions.get(&feed.session);
            held.map(|held| (held.step, held.tokens.len()))
        };
        let Some((step, position)) = held else {
            return future::ready(Err(MemberError::UnknownSession)).boxed();
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
            Act::Hang => future::pending().boxed(),
            Act::Fail(error) => future::ready(Err(error)).boxed(),
            Act::Die => {
                self.die();
                let reason = "killed".to_owned();
                future::ready(Err(MemberError::Lost { reason })).boxed()
            }
        }
    }

    fn late(&self) {
        self.state.lock().unwrap().late += 1;
    }

    fn close(&self, session: SessionId) {
        let mut state = self.state.lock().unwrap();
        state.sessions.remove(&session);
        self.open.send_replace(state.sessions.len());
    }
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
    }
}

/// The finaliser of splitmix64.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
