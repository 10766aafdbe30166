//! Who took part in a whole generation, from who took part in each token.
//!
//! Knows nothing about why members come and go.

use std::collections::BTreeMap;

use chorus_proto::v1::{MissingMember, Participation};

/// Counts, for every member, the tokens that it took part in.
#[derive(Default)]
pub(super) struct Attendance {
    tokens: u32,
    present: BTreeMap<String, u32>,
    first_reason: BTreeMap<String, String>,
    /// In member order.
    names: Vec<String>,
}

impl Attendance {
    /// `names` in member order.
    pub(super) fn new(names: impl Iterator<Item = String>) -> Self {
        Self { names: names.collect(), ..Self::default() }
    }

    /// One more token.
    pub(super) fn record(&mut self, participation: &Participation) {
        self.tokens += 1;
        for name in &participation.participants {
            *self.present.entry(name.clone()).or_default() += 1;
        }
        for missing in &participation.missing {
            // Later ones say how it comes back.
            let first = self.first_reason.entry(missing.name.clone());
            first.or_insert_with(|| missing.reason.clone());
        }
    }

    /// Participants are those who took part in every token; the others are missing from some, and it is said from how
    /// many.
    pub(super) fn whole(&self) -> Participation {
        let mut whole = Participation::default();
        for name in &self.names {
            let present = self.present.get(name).copied().unwrap_or(0);
            if present == self.tokens {
                whole.participants.push(name.clone());
                continue;
            }
            let reason = self.first_reason.get(name).map_or("", String::as_str);
            let reason = match present {
                0 => reason.to_owned(),
                _ => format!("took part in {present} of {} tokens: {reason}", self.tokens),
            };
            whole.missing.push(MissingMember { name: name.clone(), reason });
        }
        whole
    }
}
