//! [`PrefixCache`]: where the members stand after what requests begin with, so that it need not be read again.
//!
//! A state is all that a recurrent model keeps of a text, so it can be taken up only where it was taken, not in the middle as
//! attention's keys and values can. It is worth being kept at the end of a prompt, where the next turn of a conversation goes on,
//! and where two prompts part, where a third one may: R. Pan et al., "Marconi: Prefix Caching for the Era of Hybrid LLMs",
//! arXiv:2411.19379. Knows nothing about sessions or what is asked after a prompt.

mod store;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chorus_proto::v1::PrefixCacheStatus;
use metrics::Unit;

use crate::admission::Caller;
use crate::config::PrefixCacheConfig;
use crate::counter::Counter;
use crate::member::Member;
use crate::roster::Roster;
use crate::security::TokenId;
use crate::snapshot::Snapshot;
use store::{Found, Store};

const TOKENS: &str = "chorus_prefix_cache_tokens_total";
const ENTRIES: &str = "chorus_prefix_cache_entries";
const BYTES: &str = "chorus_prefix_cache_bytes";
const EVICTIONS: &str = "chorus_prefix_cache_evictions_total";

/// Between whom states are shared: nobody learns from what is cached what somebody with another token has asked.
pub(crate) type Tenant = Option<TokenId>;

/// Whose state it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Model {
    fingerprint: String,
    /// How often any of its replicas had been found to be wrong when the session began whose state it is.
    doubts: u64,
}

/// The states of one process, shared by all requests.
pub(crate) struct PrefixCache {
    store: Mutex<Store>,
    min_tokens: usize,
    max_bytes: usize,
    cached_tokens: Counter,
    read_tokens: Counter,
    evictions: metrics::Counter,
    entries: metrics::Gauge,
    bytes: metrics::Gauge,
}

/// What one request knows of its prompt, and where its states go.
#[derive(Debug, Clone)]
pub(crate) struct Prefix {
    tenant: Tenant,
    /// By member; none where nothing can be kept of it.
    models: Vec<Option<Model>>,
    /// Where each member goes on from, by its place.
    pub(crate) states: BTreeMap<usize, Snapshot>,
    /// After so many tokens the prompt parts from an earlier one: a state is worth being kept there.
    pub(crate) parting: Option<usize>,
}

impl PrefixCache {
    pub(crate) fn new(config: &PrefixCacheConfig) -> Self {
        describe();
        let tokens = |result| Counter::new(metrics::counter!(TOKENS, "result" => result));
        let max_bytes = usize::try_from(config.max_bytes).unwrap_or(usize::MAX);
        Self {
            store: Mutex::new(Store::new(max_bytes)),
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
        let models: Vec<_> = roster.members.iter().map(|member| Model::of(member)).collect();
        let tenant = caller.token();
        let Found { states, common } = self.store().find(tenant, prompt, &models);
        let states: BTreeMap<usize, Snapshot> =
            states.into_iter().enumerate().filter_map(|(place, state)| Some((place, state?))).collect();
        // Where all go on from there already, or soon before, another stop is not worth its round trip.
        let known = models.iter().enumerate().filter(|(_, model)| model.is_some());
        let known = known.map(|(place, _)| states.get(&place).map_or(0, Snapshot::position)).min();
        let is_worth_it = common < prompt.len() && common >= known.unwrap_or(common) + self.min_tokens;
        Some(Prefix { tenant, models, states, parting: is_worth_it.then_some(common) })
    }

    /// Keeps where members stand, each after a beginning of these tokens.
    pub(crate) fn keep(
        &self,
        prefix: &Prefix,
        tokens: &[u32],
        states: impl IntoIterator<Item = (usize, Snapshot)>,
    ) {
        let mut by_length: BTreeMap<usize, Vec<(Model, Snapshot)>> = BTreeMap::new();
        for (place, state) in states {
            let model = prefix.models.get(place).and_then(Option::as_ref);
            // What a replica with another model made is of no use to this one.
            let model = model.filter(|model| model.fingerprint == state.sealed().model_fingerprint);
            if let Some(model) = model
                && state.position() >= self.min_tokens
            {
                by_length.entry(state.position()).or_default().push((model.clone(), state));
            }
        }
        let mut store = self.store();
        for (length, states) in by_length {
            if let Some(tokens) = tokens.get(..length) {
                let gone = store.keep(prefix.tenant, tokens, states);
                self.evictions.increment(gone as u64);
            }
        }
        self.entries.set(store.len() as f64);
        self.bytes.set(store.bytes() as f64);
    }

    /// Counts a prompt of which so many tokens need not be read.
    pub(crate) fn count(&self, prompt: usize, cached: usize) {
        self.cached_tokens.add(cached as u64);
        self.read_tokens.add(prompt.saturating_sub(cached) as u64);
    }

    pub(crate) fn status(&self) -> PrefixCacheStatus {
        let store = self.store();
        PrefixCacheStatus {
            entries: store.len() as u64,
            bytes: store.bytes() as u64,
            max_bytes: self.max_bytes as u64,
            cached_tokens: self.cached_tokens.get(),
            read_tokens: self.read_tokens.get(),
        }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Model {
    /// What the member hosts, where it says what that is.
    fn of(member: &Member) -> Option<Self> {
        let fingerprint = member.card()?.model_fingerprint.clone();
        (!fingerprint.is_empty()).then(|| Self { fingerprint, doubts: member.doubts() })
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
