//! [`Store`]: states by the tokens that lead to them, those used last, within so many bytes.
//!
//! Pure: no lock, no clock. Knows nothing about requests or members.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::Tenant;
use crate::snapshot::Snapshot;

/// An entry's own bytes and a state's, beside tokens and states, about: what maps and allocations take.
const OVERHEAD: usize = 256;
/// A single entry has at most this share of all bytes.
const LARGEST_SHARE: usize = 8;
/// Entries that are looked at for one text. More would be needed only where somebody chose their tokens on purpose, and each look
/// compares as many tokens as the text has.
const MOST_LOOKS: usize = 64;

/// Those of one tenant; every key is what texts begin with.
type Entries = BTreeMap<Arc<[u32]>, Entry>;

pub(super) struct Store {
    max_bytes: usize,
    bytes: usize,
    tenants: HashMap<Tenant, Entries>,
    /// The least recently used is the first.
    by_use: BTreeMap<u64, (Tenant, Arc<[u32]>)>,
    uses: u64,
}

/// Where members stand after some tokens.
#[derive(Default)]
struct Entry {
    /// Of each model one.
    states: Vec<Snapshot>,
    used: u64,
}

/// What is known of a text's beginnings.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// For each model that was asked for the state after the longest beginning that is kept.
    pub(super) states: Vec<Option<Snapshot>>,
    /// How many tokens the text has in common with any that is kept.
    pub(super) common: usize,
}

impl Store {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { max_bytes, bytes: 0, tenants: HashMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// What is kept of a text's beginnings. What is found counts as used.
    pub(super) fn find(&mut self, tenant: Tenant, tokens: &[u32], models: &[Option<String>]) -> Found {
        let mut found = Found { states: vec![None; models.len()], common: 0 };
        let Some(entries) = self.tenants.get(&tenant) else {
            return found;
        };
        found.common = longest_in_common(entries, tokens);
        let mut used = Vec::new();
        for (key, entry) in beginnings(entries, tokens) {
            let mut is_used = false;
            let mut lacking = false;
            for (model, state) in models.iter().zip(&mut found.states) {
                let Some(model) = model.as_ref().filter(|_| state.is_none()) else {
                    continue;
                };
                *state = entry.state(model).cloned();
                is_used |= state.is_some();
                lacking |= state.is_none();
            }
            if is_used {
                used.push(Arc::clone(key));
            }
            if !lacking {
                break;
            }
        }
        used.into_iter().for_each(|key| self.touch(tenant, key));
        found
    }

    /// Keeps states after these tokens; others have to make room for them. Gives how many entries went.
    pub(super) fn keep(&mut self, tenant: Tenant, tokens: &[u32], states: Vec<Snapshot>) -> usize {
        let known = self.tenants.get(&tenant).and_then(|entries| entries.get_key_value(tokens));
        let (key, mut entry) = match known {
            Some((key, entry)) => (Arc::clone(key), Entry { states: entry.states.clone(), ..*entry }),
            None => (tokens.into(), Entry::default()),
        };
        for state in states {
            entry.states.retain(|other| model_of(other) != model_of(&state));
            entry.states.push(state);
        }
        if entry.bytes(&key) > self.max_bytes / LARGEST_SHARE {
            return 0;
        }
        self.remove(tenant, &key);
        self.bytes += entry.bytes(&key);
        self.by_use.insert(entry.used, (tenant, Arc::clone(&key)));
        self.tenants.entry(tenant).or_default().insert(Arc::clone(&key), entry);
        self.touch(tenant, key);
        self.make_room()
    }

    /// Forgets everything; gives how many entries there were.
    pub(super) fn clear(&mut self) -> usize {
        let gone = self.len();
        *self = Self::new(self.max_bytes);
        gone
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.by_use.len()
    }

    fn make_room(&mut self) -> usize {
        let mut gone = 0;
        while self.bytes > self.max_bytes
            && let Some((_, (tenant, key))) = self.by_use.first_key_value()
        {
            let (tenant, key) = (*tenant, Arc::clone(key));
            self.remove(tenant, &key);
            gone += 1;
        }
        gone
    }

    fn remove(&mut self, tenant: Tenant, key: &[u32]) {
        let Some(entries) = self.tenants.get_mut(&tenant) else {
            return;
        };
        if let Some(entry) = entries.remove(key) {
            self.bytes -= entry.bytes(key);
            self.by_use.remove(&entry.used);
        }
        if entries.is_empty() {
            self.tenants.remove(&tenant);
        }
    }

    fn touch(&mut self, tenant: Tenant, key: Arc<[u32]>) {
        let entry = self.tenants.get_mut(&tenant).and_then(|entries| entries.get_mut(&key));
        if let Some(entry) = entry {
            self.by_use.remove(&entry.used);
            self.uses += 1;
            entry.used = self.uses;
            self.by_use.insert(self.uses, (tenant, key));
        }
    }
}

impl Entry {
    fn state(&self, model: &str) -> Option<&Snapshot> {
        self.states.iter().find(|state| model_of(state) == model)
    }

    fn bytes(&self, tokens: &[u32]) -> usize {
        let states: usize = self.states.iter().map(|state| state.sealed().state.len() + OVERHEAD).sum();
        size_of_val(tokens) + states + OVERHEAD
    }
}

/// The fingerprint of the model whose state it is.
fn model_of(state: &Snapshot) -> &str {
    &state.sealed().model_fingerprint
}

/// The keys that the tokens begin with, the longest first, as far as [`MOST_LOOKS`] go.
fn beginnings<'a>(
    entries: &'a Entries,
    tokens: &'a [u32],
) -> impl Iterator<Item = (&'a Arc<[u32]>, &'a Entry)> {
    let (mut bound, mut looks) = (Some(tokens), 0..MOST_LOOKS);
    std::iter::from_fn(move || {
        loop {
            looks.next()?;
            // Whatever `bound` begins with is not greater than it, and not less than what it has in common with the next less
            // key: that key begins with all of it, or is one.
            let (key, entry) =
                entries.range::<[u32], _>((Bound::Unbounded, Bound::Included(bound?))).next_back()?;
            let alike = in_common(key, bound?);
            if alike == key.len() {
                bound = alike.checked_sub(1).and_then(|shorter| tokens.get(..shorter));
                return Some((key, entry));
            }
            bound = tokens.get(..alike);
        }
    })
}

/// In order, no key has more in common with the tokens than those between which they stand.
fn longest_in_common(entries: &Entries, tokens: &[u32]) -> usize {
    let before = entries.range::<[u32], _>((Bound::Unbounded, Bound::Included(tokens))).next_back();
    let after = entries.range::<[u32], _>((Bound::Excluded(tokens), Bound::Unbounded)).next();
    let neighbours = before.into_iter().chain(after);
    neighbours.map(|(key, _)| in_common(key, tokens)).max().unwrap_or_default()
}

fn in_common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
