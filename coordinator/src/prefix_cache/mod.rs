//! [`PrefixCache`]: where the members stand after what requests begin with, so that it need not be read again.
//!
//! A state is all that a recurrent model keeps of a text, so it can be taken up only where it was taken, not in the middle as
//! attention's keys and values can. It is worth being kept at the end of a prompt, where the next turn of a conversation goes on,
//! and where two prompts part, where a third one may: R. Pan et al., "Marconi: Prefix Caching for the Era of Hybrid LLMs",
//! arXiv:2411.19379. What was made before any worker was found to be wrong is forgotten then. Knows nothing about sessions or what
//! is asked after a prompt.

mod store;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chorus_proto::v1::PrefixCacheStatus;
use metrics::Unit;

use crate::admission::Caller;
use crate::config::PrefixCacheConfig;
use crate::counter::Counter;
use crate::doubts::Doubts;
use crate::member::Member;
use crate::roster::Roster;
use crate::security::TokenId;
use crate::snapshot::Snapshot;
use store::{Found, Store};

const TOKENS: &str = "chorus_prefix_cache_tokens_total";
const ENTRIES: &str = "chorus_prefix_cache_entries";
const BYTES: &str = "chorus_prefix_cache_bytes";
const EVICTIONS: &str = "chorus_prefix_cache_evictions_total";

/// A model that had no state so often in succession has none: its workers give no snapshots, or they are too large.
const MOST_LACKING: u32 = 8;

/// Between whom states are shared: nobody learns from what is cached what somebody with another token has asked.
pub(crate) type Tenant = Option<TokenId>;

/// The states of one process, shared by all requests.
pub(crate) struct PrefixCache {
    kept: Mutex<Kept>,
    doubts: Doubts,
    min_tokens: usize,
    max_bytes: usize,
    cached_tokens: Counter,
    read_tokens: Counter,
    evictions: metrics::Counter,
    entries: metrics::Gauge,
    bytes: metrics::Gauge,
}

struct Kept {
    store: Store,
    /// How often workers had been found to be wrong when the first of these states were made.
    doubts: u64,
    /// How often models, by fingerprint, were asked for a state and had none since they last had one.
    lacking: HashMap<String, u32>,
}

/// What one request knows of its prompt, and where its states go.
#[derive(Debug, Clone)]
pub(crate) struct Prefix {
    tenant: Tenant,
    /// How often workers had been found to be wrong when the session began: states that were made since may be theirs.
    doubts: u64,
    /// The models' fingerprints, by member; none where nothing can be kept of it.
    models: Vec<Option<String>>,
    /// Where each member goes on from, by its place.
    pub(crate) states: BTreeMap<usize, Snapshot>,
    /// After so many tokens the prompt parts from an earlier one: a state is worth being kept there.
    pub(crate) parting: Option<usize>,
}

impl PrefixCache {
    pub(crate) fn new(config: &PrefixCacheConfig, doubts: Doubts) -> Self {
        describe();
        let tokens = |result| Counter::new(metrics::counter!(TOKENS, "result" => result));
        let max_bytes = usize::try_from(config.max_bytes).unwrap_or(usize::MAX);
        Self {
            kept: Mutex::new(Kept {
                store: Store::new(max_bytes),
                doubts: doubts.count(),
                lacking: HashMap::new(),
            }),
            doubts,
            min_tokens: config.min_tokens as usize,
            max_bytes,
            cached_tokens: tokens("cached"),
            read_tokens: tokens("read"),
            evictions: metrics::counter!(EVICTIONS),
            entries: metrics::gauge!(ENTRIES),
            bytes: metrics::gauge!(BYTES),
        }
    }

    /// What is known of a caller's prompt to the members of an ensemble; none where nothing of it would be kept.
    pub(crate) fn look_up(&self, caller: Caller, roster: &Roster, prompt: &[u32]) -> Option<Prefix> {
        if self.max_bytes == 0 || prompt.len() < self.min_tokens {
            return None;
        }
        let (tenant, mut kept) = (caller.token(), self.kept());
        let models: Vec<_> = roster.members.iter().map(|member| kept.model_of(member)).collect();
        let Found { states, common } = kept.store.find(tenant, prompt, &models);
        let states: BTreeMap<usize, Snapshot> =
            states.into_iter().enumerate().filter_map(|(place, state)| Some((place, state?))).collect();
        // Where all go on from there already, or soon before, another stop is not worth its round trip.
        let of_member = |(place, model): (usize, &Option<String>)| {
            let is_up = || roster.members.get(place).is_some_and(|member| member.presence().is_up());
            (model.is_some() && is_up()).then(|| states.get(&place).map_or(0, Snapshot::position))
        };
        let least = models.iter().enumerate().filter_map(of_member).min();
        let is_worth_it = |least: usize| common < prompt.len() && common >= least + self.min_tokens;
        let parting = least.is_some_and(is_worth_it).then_some(common);
        Some(Prefix { tenant, doubts: kept.doubts, models, states, parting })
    }

    /// Keeps where members in step stand, each after a beginning of these tokens.
    pub(crate) fn keep(
        &self,
        prefix: &Prefix,
        tokens: &[u32],
        states: impl IntoIterator<Item = (usize, Option<Snapshot>)>,
    ) {
        let mut kept = self.kept();
        if prefix.doubts != kept.doubts {
            return;
        }
        let mut by_length: BTreeMap<usize, Vec<Snapshot>> = BTreeMap::new();
        for (place, state) in states {
            let Some(model) = prefix.models.get(place).and_then(Option::as_ref) else {
                continue;
            };
            let Some(state) = state else {
                *kept.lacking.entry(model.clone()).or_default() += 1;
                continue;
            };
            // What a replica with another model made is of no use to this one.
            if *model == state.sealed().model_fingerprint && state.position() >= self.min_tokens {
                kept.lacking.remove(model);
                by_length.entry(state.position()).or_default().push(state);
            }
        }
        for (length, states) in by_length {
            if let Some(tokens) = tokens.get(..length) {
                let gone = kept.store.keep(prefix.tenant, tokens, states);
                self.evictions.increment(gone as u64);
            }
        }
        self.entries.set(kept.store.len() as f64);
        self.bytes.set(kept.store.bytes() as f64);
    }

    /// Counts a prompt of which so many tokens need not be read.
    pub(crate) fn count(&self, prompt: usize, cached: usize) {
        self.cached_tokens.add(cached as u64);
        self.read_tokens.add(prompt.saturating_sub(cached) as u64);
    }

    pub(crate) fn status(&self) -> PrefixCacheStatus {
        let kept = self.kept();
        PrefixCacheStatus {
            entries: kept.store.len() as u64,
            bytes: kept.store.bytes() as u64,
            max_bytes: self.max_bytes as u64,
            cached_tokens: self.cached_tokens.get(),
            read_tokens: self.read_tokens.get(),
        }
    }

    /// What is kept, without what was made by whoever was found to be wrong since: it may be anybody's.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let doubts = self.doubts.count();
        if kept.doubts != doubts {
            let gone = kept.store.clear();
            self.evictions.increment(gone as u64);
            kept.doubts = doubts;
        }
        kept
    }
}

impl Kept {
    /// What the member hosts, where it says what that is and states of it can be had.
    fn model_of(&self, member: &Member) -> Option<String> {
        let fingerprint = member.card()?.model_fingerprint.clone();
        let lacks = self.lacking.get(&fingerprint).is_some_and(|times| *times >= MOST_LACKING);
        (!fingerprint.is_empty() && !lacks).then_some(fingerprint)
    }
}

fn describe() {
    metrics::describe_counter!(
        TOKENS,
        Unit::Count,
        "Tokens of prompts that could be cached: those that nobody had to read (cached), and the others (read)"
    );
    metrics::describe_gauge!(ENTRIES, Unit::Count, "Beginnings of prompts after which states are kept");
    metrics::describe_gauge!(BYTES, Unit::Bytes, "What these and their states take, about");
    metrics::describe_counter!(
        EVICTIONS,
        Unit::Count,
        "Beginnings of prompts that had to make room for others"
    );
}

impl fmt::Debug for PrefixCache {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PrefixCache").field("max_bytes", &self.max_bytes).finish_non_exhaustive()
    }
}
