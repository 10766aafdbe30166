//! Who took part in a whole generation, from who took part in each token.
//!
//! Knows nothing about why members come and go.

use chorus_proto::v1::{MissingMember, Participation, TokenRange};

/// Remembers, for every member, the tokens that it is missing from.
#[derive(Default)]
pub(super) struct Attendance {
    tokens: u32,
    /// In member order.
    absences: Vec<Absences>,
}

/// The tokens without one member.
struct Absences {
    name: String,
    /// Why it was missing the first time; later ones say how it comes back.
    reason: String,
    ranges: Vec<TokenRange>,
}

impl Attendance {
    /// `names` in member order.
    pub(super) fn new(names: impl Iterator<Item = String>) -> Self {
        let absences = names.map(|name| Absences { name, reason: String::new(), ranges: Vec::new() });
        Self { tokens: 0, absences: absences.collect() }
    }

    /// One more token. Completes what is said with it: who is back from this one on.
    pub(super) fn record(&mut self, participation: &mut Participation) {
        let index = self.tokens;
        self.tokens += 1;
        for absences in &mut self.absences {
            let was_missing = absences.ranges.last().is_some_and(|last| last.end == index);
            let mut missing = participation.missing.iter();
            match missing.find(|missing| missing.name == absences.name) {
                Some(missing) => absences.add(index, &missing.reason),
                None if was_missing => participation.rejoined.push(absences.name.clone()),
                None => {}
            }
        }
    }

    /// Participants are those who took part in every token; of the others it is said in how many they did, and from which
    /// they are missing.
    pub(super) fn whole(&self) -> Participation {
        let mut whole = Participation::default();
        for absences in &self.absences {
            if absences.ranges.is_empty() {
                whole.participants.push(absences.name.clone());
            } else {
                whole.missing.push(absences.of(self.tokens));
            }
        }
        whole
    }
}

impl Absences {
    fn add(&mut self, index: u32, reason: &str) {
        match self.ranges.last_mut() {
            Some(last) if last.end == index => last.end += 1,
            last => {
                if last.is_none() {
                    reason.clone_into(&mut self.reason);
                }
                self.ranges.push(TokenRange { first: index, end: index + 1 });
            }
        }
    }

    fn of(&self, tokens: u32) -> MissingMember {
        let missing: u32 = self.ranges.iter().map(|range| range.end - range.first).sum();
        let reason = match tokens - missing {
            0 => self.reason.clone(),
            present => format!("took part in {present} of {tokens} tokens: {}", self.reason),
        };
        MissingMember { name: self.name.clone(), reason, tokens: self.ranges.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_and_goes_is_known_to_the_token() {
        let mut attendance = Attendance::new(["alto", "bass", "cello"].map(str::to_owned).into_iter());
        let rejoined: Vec<Vec<String>> =
            [&[][..], &["bass"], &["bass", "cello"], &["cello"], &["bass", "cello"]]
                .into_iter()
                .map(|missing| {
                    let missing = missing.iter().map(|name| MissingMember {
                        name: (*name).to_owned(),
                        reason: "unplugged".to_owned(),
                        ..MissingMember::default()
                    });
                    let mut participation =
                        Participation { missing: missing.collect(), ..Participation::default() };
                    attendance.record(&mut participation);
                    participation.rejoined
                })
                .collect();
        assert_eq!(rejoined, [vec![], vec![], vec![], vec!["bass".to_owned()], vec![]]);
        let whole = attendance.whole();
        assert_eq!(whole.participants, ["alto"]);
        let range = |first, end| TokenRange { first, end };
        assert_eq!(
            whole.missing,
            [
                MissingMember {
                    name: "bass".to_owned(),
                    reason: "took part in 2 of 5 tokens: unplugged".to_owned(),
                    tokens: vec![range(1, 3), range(4, 5)],
                },
                MissingMember {
                    name: "cello".to_owned(),
                    reason: "took part in 2 of 5 tokens: unplugged".to_owned(),
                    tokens: vec![range(2, 5)],
                },
            ]
        );
    }
}
