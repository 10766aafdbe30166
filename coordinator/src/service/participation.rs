//! Who took part in a whole generation, from who took part in each token; and what it is expected to cost that somebody did not.
//!
//! Knows nothing about why members come and go.

use chorus_proto::v1::{Expectation, Fallback, MissingMember, Participation, TokenRange};

use crate::weights::Weighting;

/// Says of an answer without some members what it is expected to cost. `names` in member order.
pub(super) fn expect(participation: &mut Participation, names: &[String], weighting: &Weighting) {
    if participation.missing.is_empty() {
        return;
    }
    let place = |name: &String| names.iter().position(|other| other == name);
    let places = participation.participants.iter().map(place).collect::<Option<Vec<usize>>>();
    participation.expectation = places.and_then(|places| weighting.expectation(&places));
}

/// Remembers, for every member, the tokens that it is missing from.
#[derive(Default)]
pub(super) struct Attendance {
    tokens: u32,
    /// In member order.
    absences: Vec<Absences>,
    /// Of the tokens of which something was expected.
    expected: Expected,
    /// Who answered in place of the members, once somebody did.
    fallback: Option<Fallback>,
}

#[derive(Default)]
struct Expected {
    log_perplexities: Sums,
    accuracies: Sums,
}

#[derive(Default)]
struct Sums {
    tokens: u32,
    of_participants: f64,
    of_all: f64,
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
        Self { absences: absences.collect(), ..Self::default() }
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
        if let Some(expectation) = participation.expectation {
            self.expected.add(expectation);
        }
        if let Some(fallback) = &participation.fallback {
            let fallback = self.fallback.get_or_insert_with(|| fallback.clone());
            add(&mut fallback.tokens, index);
        }
    }

    /// Participants are those who took part in every token; of the others it is said in how many they did, and from which
    /// they are missing.
    pub(super) fn whole(&self) -> Participation {
        let mut whole = Participation {
            expectation: self.expected.mean(self.tokens),
            fallback: self.fallback.clone(),
            ..Participation::default()
        };
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

/// One more token of those in the ranges.
fn add(ranges: &mut Vec<TokenRange>, index: u32) {
    match ranges.last_mut() {
        Some(last) if last.end == index => last.end += 1,
        _ => ranges.push(TokenRange { first: index, end: index + 1 }),
    }
}

impl Expected {
    fn add(&mut self, expectation: Expectation) {
        let Expectation { perplexity, perplexity_of_all, accuracy, accuracy_of_all } = expectation;
        self.log_perplexities.add(perplexity.map(f64::ln).zip(perplexity_of_all.map(f64::ln)));
        self.accuracies.add(accuracy.zip(accuracy_of_all));
    }

    /// Of a generation of so many tokens.
    fn mean(&self, tokens: u32) -> Option<Expectation> {
        let (log_perplexity, log_perplexity_of_all) = self.log_perplexities.mean(tokens).unzip();
        let (accuracy, accuracy_of_all) = self.accuracies.mean(tokens).unzip();
        let (perplexity, perplexity_of_all) =
            (log_perplexity.map(f64::exp), log_perplexity_of_all.map(f64::exp));
        let is_known = perplexity.or(accuracy).is_some();
        is_known.then_some(Expectation { perplexity, perplexity_of_all, accuracy, accuracy_of_all })
    }
}

impl Sums {
    fn add(&mut self, expected: Option<(f64, f64)>) {
        let Some((of_participants, of_all)) = expected else {
            return;
        };
        self.tokens += 1;
        self.of_participants += of_participants;
        self.of_all += of_all;
    }

    /// Over all tokens, or over those for which something is known where that is not the case for some without a member.
    /// Tokens of everybody cost nothing.
    fn mean(&self, tokens: u32) -> Option<(f64, f64)> {
        if self.tokens == 0 {
            return None;
        }
        let of_all = self.of_all / f64::from(self.tokens);
        let lost = (self.of_participants - self.of_all) / f64::from(tokens);
        Some((of_all + lost, of_all))
    }
}

impl Absences {
    fn add(&mut self, index: u32, reason: &str) {
        if self.ranges.is_empty() {
            reason.clone_into(&mut self.reason);
        }
        add(&mut self.ranges, index);
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
    fn what_is_expected_of_a_generation_is_a_mean_over_all_its_tokens() {
        let mut attendance = Attendance::new(["alto", "bass"].map(str::to_owned).into_iter());
        assert_eq!(attendance.whole().expectation, None);
        let mut record = |expectation| {
            for expectation in [None, Some(expectation), None, None] {
                attendance.record(&mut Participation { expectation, ..Participation::default() });
            }
            let whole = attendance.whole().expectation.unwrap();
            attendance = Attendance::default();
            whole
        };
        let of =
            Expectation { perplexity: Some(9.0), perplexity_of_all: Some(4.0), ..Expectation::default() };
        let whole = record(of);
        assert!((whole.perplexity_of_all.unwrap() - 4.0).abs() < 1e-12);
        // The fourth root of 4 * 4 * 4 * 9.
        assert!((whole.perplexity.unwrap() - (4.0 * 4.0 * 4.0 * 9.0_f64).powf(0.25)).abs() < 1e-12);
        assert_eq!((whole.accuracy, whole.accuracy_of_all), (None, None));
        let of = Expectation { accuracy: Some(0.2), accuracy_of_all: Some(0.4), ..Expectation::default() };
        let whole = record(of);
        assert!((whole.accuracy.unwrap() - 0.35).abs() < 1e-12, "{whole:?}");
        assert!((whole.accuracy_of_all.unwrap() - 0.4).abs() < 1e-12, "{whole:?}");
        assert_eq!(whole.perplexity, None);
    }

    #[test]
    fn the_tokens_of_a_fallback_are_known() {
        let mut attendance = Attendance::new(["alto"].map(str::to_owned).into_iter());
        for by_fallback in [false, true, true] {
            let fallback = Fallback { name: "student".to_owned(), tokens: Vec::new() };
            let fallback = by_fallback.then_some(fallback);
            attendance.record(&mut Participation { fallback, ..Participation::default() });
        }
        let tokens = vec![TokenRange { first: 1, end: 3 }];
        assert_eq!(attendance.whole().fallback, Some(Fallback { name: "student".to_owned(), tokens }));
    }

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
