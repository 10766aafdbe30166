//! What answers have to be: the same models, fused in this process, for the participants that an answer declares.
//!
//! Knows nothing about networks, replicas or time.

use std::{collections::HashMap, path::Path, sync::Mutex};

use candle_core::Device;
use chorus_coordinator::{
    fusion::{Fused, Fusion, Row, Rule, Scratch, fuse},
    sampling::{drawing_member, uniform},
};
use chorus_model::{LanguageModel, Want};
use chorus_proto::v1::Participation;
use chorus_simd::norm;

/// Members with their names and weights.
pub(crate) struct Reference {
    members: Vec<(String, f64, LanguageModel)>,
    /// Rows that were computed before: prefixes are asked about again and again.
    rows: Mutex<Rows>,
}

/// By member and prefix.
type Rows = HashMap<(usize, Vec<u32>), Vec<f32>>;

impl Reference {
    pub(crate) fn load<'a>(members: impl IntoIterator<Item = (&'a str, f64, &'a Path)>) -> Self {
        let load = |(name, weight, path): (&str, f64, &Path)| {
            (name.to_owned(), weight, LanguageModel::load(path, &Device::Cpu).unwrap())
        };
        Self { members: members.into_iter().map(load).collect(), rows: Mutex::default() }
    }

    pub(crate) fn vocabulary_size(&self) -> usize {
        self.members[0].2.config().vocab_size
    }

    /// The places of those who take part.
    pub(crate) fn participants(&self, participation: &Participation) -> Vec<usize> {
        let place = |name: &String| self.members.iter().position(|(known, ..)| known == name).unwrap();
        let places: Vec<usize> = participation.participants.iter().map(place).collect();
        assert!(places.is_sorted_by(|one, other| one < other), "{participation:?}");
        assert_eq!(places.len() + participation.missing.len(), self.members.len(), "{participation:?}");
        places
    }

    /// What the rule makes of these participants after a prefix.
    pub(crate) fn fused<T>(
        &self,
        participants: &[usize],
        prefix: &[u32],
        rule: Rule,
        make: impl FnOnce(Fused<'_>) -> T,
    ) -> T {
        let rows: Vec<Vec<f32>> = participants.iter().map(|member| self.row(*member, prefix)).collect();
        let size = self.vocabulary_size();
        let rows = participants.iter().zip(&rows);
        let rows: Vec<(f64, Row<'_>)> = rows
            .map(|(member, row)| {
                (self.members[*member].1, Row::new(row.as_slice(), norm(row), size).unwrap())
            })
            .collect();
        make(fuse(&Fusion { rule, threshold: 0.1 }, &rows, &mut Scratch::default()).unwrap())
    }

    /// The token that the member draws whose turn it is among these participants.
    pub(crate) fn drawn(&self, participants: &[usize], prefix: &[u32], seed: u64, index: u32) -> u32 {
        let weighted = participants.iter().map(|member| (*member, self.members[*member].1));
        let row = self.row(drawing_member(seed, index, weighted).unwrap(), prefix);
        chorus_simd::draw(&row, norm(&row), uniform(seed, index)) as u32
    }

    fn row(&self, member: usize, prefix: &[u32]) -> Vec<f32> {
        if let Some(row) = self.rows.lock().unwrap().get(&(member, prefix.to_vec())) {
            return row.clone();
        }
        let model = &self.members[member].2;
        let mut state = model.fresh_state().unwrap();
        let row = chorus_model::Row { state: &mut state, tokens: prefix, want: Want::Next };
        let row = model.forward(&mut [row]).unwrap().remove(0).logits;
        self.rows.lock().unwrap().insert((member, prefix.to_vec()), row.clone());
        row
    }
}
