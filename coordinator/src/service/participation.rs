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
            // Nearly always it is there, and then its name is not copied.
            if let Some(present) = self.present.get_mut(name) {
                *present += 1;
            } else {
                self.present.insert(name.clone(), 1);
            }
        }
        for missing in &participation.missing {
            // Later ones say how it comes back.
            if !self.first_reason.contains_key(&missing.name) {
                self.first_reason.insert(missing.name.clone(), missing.reason.clone());
            }
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
