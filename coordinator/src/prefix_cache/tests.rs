//! The store against one that looks at every entry, and what is worth a stop on the way.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use chorus_proto::v1;
use chorus_text::Vocabulary;
use proptest::prelude::*;

use super::store::{Found, Store};
use super::*;
use crate::dense::DenseBudget;
use crate::quorum::Quorum;
use crate::replica::Replica;
use crate::testing::scripted_replica::ScriptedReplica;
use crate::weights::Weights;

const STATE_BYTES: usize = 100;

fn model(number: u8) -> String {
    number.to_string()
}

/// `mark` tells it from others of as many tokens.
fn state(tokens: usize, fingerprint: &str, mark: u8) -> Snapshot {
    let state = vec![mark; STATE_BYTES];
    let (checksum, model_fingerprint) = (crc32fast::hash(&state), fingerprint.to_owned());
    let sealed = v1::Snapshot { position: tokens as u64, model_fingerprint, state: state.into(), checksum };
    Snapshot::read(sealed).unwrap()
}

/// Every entry in a list, the least recently used first.
struct Naive {
    max_bytes: usize,
    entries: Vec<Entry>,
}

type Entry = (Vec<u32>, Vec<Snapshot>);

impl Naive {
    fn bytes_of((tokens, states): &Entry) -> usize {
        4 * tokens.len() + states.len() * (STATE_BYTES + 256) + 256
    }

    fn bytes(&self) -> usize {
        self.entries.iter().map(Self::bytes_of).sum()
    }

    fn find(&mut self, tokens: &[u32], models: &[Option<String>]) -> Found {
        let alike = |key: &[u32]| key.iter().zip(tokens).take_while(|(one, other)| one == other).count();
        let common = self.entries.iter().map(|(key, _)| alike(key)).max().unwrap_or_default();
        let mut states = vec![None; models.len()];
        let mut used: Vec<usize> = Vec::new();
        for (model, found) in models.iter().zip(&mut states) {
            let beginnings = self.entries.iter().enumerate().filter(|(_, (key, _))| tokens.starts_with(key));
            let of_model = beginnings.filter_map(|(place, (key, states))| {
                let model = model.as_ref()?;
                let state = states.iter().find(|state| state.sealed().model_fingerprint == *model)?;
                Some((key.len(), place, state.clone()))
            });
            if let Some((_, place, state)) = of_model.max_by_key(|(length, ..)| *length) {
                *found = Some(state);
                used.push(place);
            }
        }
        // Longer ones are looked at, and so used, before shorter ones.
        used.sort_unstable();
        used.dedup();
        let mut keys: Vec<Vec<u32>> = used.into_iter().map(|place| self.entries[place].0.clone()).collect();
        keys.sort_by_key(|key| std::cmp::Reverse(key.len()));
        for key in keys {
            let place = self.entries.iter().position(|(other, _)| *other == key).unwrap();
            let entry = self.entries.remove(place);
            self.entries.push(entry);
        }
        Found { states, common }
    }

    fn keep(&mut self, tokens: &[u32], states: Vec<Snapshot>) {
        let place = self.entries.iter().position(|(key, _)| key == tokens);
        let before = place.map(|place| self.entries[place].1.clone()).unwrap_or_default();
        let mut all: Vec<_> = before
            .into_iter()
            .filter(|old| {
                let model = |state: &Snapshot| state.sealed().model_fingerprint.clone();
                states.iter().all(|new| model(new) != model(old))
            })
            .collect();
        all.extend(states);
        let entry = (tokens.to_vec(), all);
        if Self::bytes_of(&entry) > self.max_bytes / 8 {
            return;
        }
        if let Some(place) = place {
            self.entries.remove(place);
        }
        self.entries.push(entry);
        while self.bytes() > self.max_bytes {
            self.entries.remove(0);
        }
    }
}

#[derive(Debug, Clone)]
enum Act {
    Find(Vec<u32>, Vec<Option<u8>>),
    Keep(Vec<u32>, Vec<u8>, u8),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let tokens = || prop::collection::vec(0..3_u32, 1..8);
    let find = (tokens(), prop::collection::vec(prop::option::weighted(0.9, 0..3_u8), 1..4));
    let keep = (tokens(), prop::sample::subsequence(vec![0_u8, 1, 2], 1..=3), any::<u8>());
    let act = prop_oneof![
        find.prop_map(|(tokens, models)| Act::Find(tokens, models)),
        keep.prop_map(|(tokens, models, mark)| Act::Keep(tokens, models, mark)),
    ];
    prop::collection::vec(act, 1..80)
}

proptest! {
    #[test]
    fn it_finds_what_looking_at_everything_finds_and_forgets_what_was_not_used_longest(
        acts in acts(),
        max_bytes in prop_oneof![Just(0_usize), 5_000..20_000_usize, Just(usize::MAX / 2)],
    ) {
        let mut store = Store::new(max_bytes);
        let mut naive = Naive { max_bytes, entries: Vec::new() };
        for act in acts {
            match act {
                Act::Find(tokens, models) => {
                    let models: Vec<_> = models.into_iter().map(|number| number.map(model)).collect();
                    prop_assert_eq!(store.find(None, &tokens, &models), naive.find(&tokens, &models));
                }
                Act::Keep(tokens, models, mark) => {
                    let states = models.into_iter().map(|number| {
                        state(tokens.len(), &number.to_string(), mark)
                    });
                    let states: Vec<_> = states.collect();
                    let before = naive.entries.len();
                    naive.keep(&tokens, states.clone());
                    let gone = store.keep(None, &tokens, states);
                    prop_assert!(gone <= before);
                }
            }
            prop_assert_eq!((store.len(), store.bytes()), (naive.entries.len(), naive.bytes()));
            prop_assert!(store.bytes() <= max_bytes);
        }
    }
}

#[test]
fn beginnings_that_somebody_made_to_be_looked_at_are_not_all_looked_at() {
    let mut store = Store::new(usize::MAX / 2);
    for length in 1..=100 {
        store.keep(None, &vec![7; length], vec![state(length, "0", 1)]);
    }
    let tokens = [7; 200];
    let found = store.find(None, &tokens, &[Some(model(0)), Some(model(1))]);
    assert_eq!(found.states[0].as_ref().map(Snapshot::position), Some(100));
    assert_eq!((found.states[1].clone(), found.common), (None, 100));
}

#[test]
fn nor_are_those_that_somebody_made_to_part_one_after_the_other() {
    let mut store = Store::new(usize::MAX / 2);
    // In order each stands just before the text up to where it parts.
    for length in 1..=1000_usize {
        let mut tokens = vec![7; length];
        tokens.push(3);
        store.keep(None, &tokens, vec![state(length + 1, "0", 1)]);
    }
    store.keep(None, &[7], vec![state(1, "0", 1)]);
    let found = store.find(None, &[7; 2000], &[Some(model(0))]);
    assert_eq!(
        (found.states, found.common),
        (vec![None], 1000),
        "one that is hidden behind so many is not found"
    );
    let found = store.find(None, &[7; 50], &[Some(model(0))]);
    assert_eq!(found.states[0].as_ref().map(Snapshot::position), Some(1));
}

/// One member, and a cache that keeps what has four tokens.
struct Stage {
    cache: PrefixCache,
    doubts: Doubts,
    replica: Arc<ScriptedReplica>,
    roster: Roster,
}

impl Stage {
    fn new(max_bytes: u64) -> Self {
        let vocabulary = Vocabulary::train_characters("abcdefgh").unwrap();
        let replica = ScriptedReplica::new("alto", 1, &vocabulary);
        replica.start();
        let member = Member::new("alto", [Arc::clone(&replica) as Arc<dyn Replica>], 0.0);
        let roster = Roster {
            members: vec![Arc::new(member)],
            weights: Weights::equal(1),
            quorum: Quorum::default(),
            dense: DenseBudget::default(),
        };
        let doubts = Doubts::default();
        let cache = PrefixCache::new(&PrefixCacheConfig { max_bytes, min_tokens: 4 }, doubts.clone());
        Self { cache, doubts, replica, roster }
    }

    fn look_up(&self, prompt: &[u32]) -> Option<Prefix> {
        self.look_up_for(None, prompt)
    }

    fn look_up_for(&self, token: Option<TokenId>, prompt: &[u32]) -> Option<Prefix> {
        let mut request = tonic::Request::new(());
        token.map(|token| request.extensions_mut().insert(token));
        self.cache.look_up(Caller::of(&request), &self.roster, prompt)
    }

    /// Looks a prompt up and keeps the state after all of it. From where it goes on, and where it would stop on the way.
    fn read(&self, prompt: &[u32]) -> (usize, Option<usize>) {
        let prefix = self.look_up(prompt).unwrap();
        self.cache.keep(&prefix, prompt, [(0, Some(state(prompt.len(), "scripted 1", 1)))]);
        (prefix.states.get(&0).map_or(0, Snapshot::position), prefix.parting)
    }
}

#[test]
fn where_two_prompts_part_is_worth_a_stop_once() {
    let stage = Stage::new(1 << 20);
    assert_eq!(stage.read(&[1, 2, 3, 4, 5, 6, 7]), (0, None), "nothing is known");
    assert_eq!(stage.read(&[1, 2, 3, 4, 5, 6, 7]), (7, None), "all is");
    assert_eq!(stage.read(&[1, 2, 3, 4, 5, 6, 7, 0, 0]), (7, None), "it goes on from there");
    assert_eq!(stage.read(&[1, 2, 3, 4, 0, 0, 0]), (0, Some(4)), "another one began so, too");
    let prefix = stage.look_up(&[1, 2, 3, 4, 9]).unwrap();
    stage.cache.keep(&prefix, &[1, 2, 3, 4, 9], [(0, Some(state(4, "scripted 1", 1)))]);
    assert_eq!(stage.read(&[1, 2, 3, 4, 1, 1]), (4, None));
    assert_eq!(stage.read(&[1, 2, 3, 4, 1, 2]), (4, None), "one token more is soon read again");
    assert_eq!(stage.read(&[5, 2, 3, 4]), (0, None));
    assert!(stage.look_up(&[1, 2, 3]).is_none(), "so is a short prompt");
}

#[test]
fn what_was_made_before_a_worker_was_found_to_be_wrong_is_not_used_any_more() {
    let stage = Stage::new(1 << 20);
    let prompt = [1, 2, 3, 4, 5];
    let before = stage.look_up(&prompt).unwrap();
    stage.read(&prompt);
    assert_eq!(stage.read(&prompt), (5, None));
    stage.doubts.add();
    assert_eq!(stage.look_up(&prompt).unwrap().states, BTreeMap::new());
    stage.cache.keep(&before, &prompt, [(0, Some(state(5, "scripted 1", 2)))]);
    assert_eq!(
        stage.look_up(&prompt).unwrap().states,
        BTreeMap::new(),
        "nor what is kept later and made before"
    );
    stage.read(&prompt);
    assert_eq!(stage.read(&prompt), (5, None));
}

#[test]
fn nobody_stops_on_the_way_for_a_member_that_is_away_or_has_no_states() {
    let stage = Stage::new(1 << 20);
    stage.read(&[1, 2, 3, 4, 5, 6]);
    stage.replica.die();
    assert_eq!(stage.look_up(&[1, 2, 3, 4, 0]).unwrap().parting, None);
    stage.replica.start();
    for place in 0..20 {
        let prompt = [1, 2, 3, 4, 0, place];
        let prefix = stage.look_up(&prompt).unwrap();
        assert_eq!(prefix.parting.is_some(), place < MOST_LACKING, "{place}");
        stage.cache.keep(&prefix, &prompt, [(0, None)]);
    }
}

#[test]
fn what_another_model_made_or_what_is_short_is_not_kept() {
    let stage = Stage::new(1 << 20);
    let prompt = [1, 2, 3, 4, 5];
    let prefix = stage.look_up(&prompt).unwrap();
    stage.cache.keep(
        &prefix,
        &prompt,
        [(0, Some(state(5, "another", 1))), (1, Some(state(5, "scripted 1", 1)))],
    );
    stage.cache.keep(
        &prefix,
        &prompt,
        [(0, Some(state(3, "scripted 1", 1))), (0, Some(state(6, "scripted 1", 1)))],
    );
    assert_eq!(stage.cache.status().entries, 0);
}

#[test]
fn callers_with_different_tokens_share_nothing() {
    let stage = Stage::new(1 << 20);
    let tokens = "[[tokens]]\nname = 'a'\nscopes = ['read']\ntoken = 'aaaaaaaaaaaaaaaa'\n\
                  [[tokens]]\nname = 'b'\nscopes = ['read']\ntoken = 'bbbbbbbbbbbbbbbb'\n";
    let tokens = crate::security::Tokens::from_toml(tokens).unwrap();
    let [a, b] = [b"aaaaaaaaaaaaaaaa", b"bbbbbbbbbbbbbbbb"].map(|token| tokens.find(token).unwrap().id);
    let prompt = [1, 2, 3, 4, 5];
    let prefix = stage.look_up_for(Some(a), &prompt).unwrap();
    stage.cache.keep(&prefix, &prompt, [(0, Some(state(5, "scripted 1", 1)))]);
    assert_eq!(stage.look_up_for(Some(a), &prompt).unwrap().states.len(), 1);
    for other in [Some(b), None] {
        let prefix = stage.look_up_for(other, &[1, 2, 3, 4, 0]).unwrap();
        assert!(prefix.states.is_empty() && prefix.parting.is_none(), "not even that it was there");
    }
}

#[test]
fn where_nothing_may_be_kept_nothing_is_looked_up() {
    assert!(Stage::new(0).look_up(&[1, 2, 3, 4, 5]).is_none());
}
