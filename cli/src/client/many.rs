//! Requests of which many are in progress at a time: how many that may be, and what is said of those that not all members
//! answered. Knows nothing about what is asked.

use chorus_proto::v1::Participation;

use super::format::absence;
use crate::failure::warn;

/// Reads how many requests are in progress at a time.
///
/// # Errors
/// It is no number in the range, which the message names.
pub(super) fn in_flight(argument: &str) -> Result<usize, String> {
    let number = argument.parse().ok().filter(|number| (1..=1000).contains(number));
    number.ok_or_else(|| "a whole number from 1 to 1000 is needed".to_owned())
}

/// Answers that some member is missing from.
#[derive(Debug, Default)]
pub(super) struct Degraded {
    answers: usize,
    first: Option<String>,
}

impl Degraded {
    /// One more answer.
    pub(super) fn count(&mut self, participation: Option<&Participation>) {
        let is_degraded = |it: &&Participation| !it.missing.is_empty() || it.fallback.is_some();
        if let Some(participation) = participation.filter(is_degraded) {
            self.answers += 1;
            self.first.get_or_insert_with(|| absence(participation));
        }
    }

    /// One warning for all of them, if there are any.
    pub(super) fn warn(&self) {
        if let Some(absence) = &self.first {
            warn(&format!("{} answers are not of all members; the first was given {absence}", self.answers));
        }
    }
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::MissingMember;

    use super::*;

    #[test]
    fn the_number_in_flight_has_a_range() {
        assert_eq!(in_flight("1"), Ok(1));
        for wrong in ["0", "1001", "-1", "many"] {
            assert!(in_flight(wrong).unwrap_err().contains("from 1 to 1000"));
        }
    }

    #[test]
    fn answers_without_a_member_are_counted_and_the_first_is_told() {
        let whole = Participation::default();
        let without = |name: &str| Participation {
            missing: vec![MissingMember {
                name: name.into(),
                reason: "it is away".into(),
                ..MissingMember::default()
            }],
            ..Participation::default()
        };
        let mut degraded = Degraded::default();
        for participation in [&whole, &without("alto"), &without("bass")] {
            degraded.count(Some(participation));
        }
        assert_eq!(degraded.answers, 2);
        assert!(degraded.first.unwrap().contains("alto"));
    }
}
