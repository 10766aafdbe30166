//! The least participation with which the ensemble may answer. Knows nothing about why a member is missing.

use chorus_proto::v1::{self, Participation};
use serde::{Deserialize, Serialize};

use crate::weights::shares_of;

/// How many members, and what share of the total configured weight, must take part in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quorum {
    /// Least number of participants, at least 1.
    pub members: usize,
    /// Least share of the total configured weight, in [0, 1].
    pub weight: f64,
}

/// One member, there or not.
#[derive(Clone, Copy, Debug)]
pub struct Attendance<'a> {
    /// The member's name.
    pub name: &'a str,
    /// Its configured weight.
    pub weight: f64,
    /// Why it is missing; `None` where it takes part.
    pub missing: Option<&'a str>,
}

/// Too few take part: the answer is UNAVAILABLE.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QuorumError {
    /// Too few members.
    #[error("{present} of {total} members take part, the quorum is {quorum}; missing: {missing}")]
    Members {
        /// Members that take part.
        present: usize,
        /// All members.
        total: usize,
        /// Least number.
        quorum: usize,
        /// Names of the missing members, with reasons.
        missing: String,
    },
    /// Anybody missing is too much for the request.
    #[error("the request wants every member (fusion.allow_degraded is false); missing: {missing}")]
    Degraded {
        /// Names of the missing members, with reasons.
        missing: String,
    },
    /// Too little weight.
    #[error(
        "the members that take part have {present:.3} of the weight, the quorum is {quorum}; missing: {missing}"
    )]
    Weight {
        /// Their share of the total weight.
        present: f64,
        /// Least share.
        quorum: f64,
        /// Names of the missing members, with reasons.
        missing: String,
    },
}

/// A share that is a sum of shares may miss the quorum by rounding.
const ROUNDING: f64 = 1e-9;

impl QuorumError {
    /// For a request that goes on without nobody.
    pub(crate) fn degraded(participation: &Participation) -> Self {
        let names =
            participation.missing.iter().map(|missing| format!("{} ({})", missing.name, missing.reason));
        Self::Degraded { missing: names.collect::<Vec<_>>().join(", ") }
    }
}

impl Default for Quorum {
    /// One member suffices.
    fn default() -> Self {
        Self { members: 1, weight: 0.0 }
    }
}

impl From<Quorum> for v1::Quorum {
    fn from(quorum: Quorum) -> Self {
        Self { members: u32::try_from(quorum.members).unwrap_or(u32::MAX), weight: quorum.weight }
    }
}

impl Quorum {
    /// Whether those who take part may answer.
    ///
    /// ```
    /// use chorus_coordinator::quorum::{Attendance, Quorum};
    ///
    /// let alto = Attendance { name: "alto", weight: 2.0, missing: None };
    /// let bass = Attendance { name: "bass", weight: 1.0, missing: Some("connection refused") };
    /// assert!(Quorum { members: 1, weight: 0.6 }.check(&[alto, bass]).is_ok());
    /// let error = Quorum { members: 2, weight: 0.0 }.check(&[alto, bass]).unwrap_err();
    /// assert!(error.to_string().ends_with("missing: bass (connection refused)"));
    /// ```
    ///
    /// # Errors
    /// Too few members or too little weight; the message names the missing members. Nobody is never enough.
    pub fn check(&self, members: &[Attendance<'_>]) -> Result<(), QuorumError> {
        let present = || members.iter().filter(|member| member.missing.is_none());
        let count = present().count();
        let quorum = self.members.max(1);
        if count < quorum {
            return Err(QuorumError::Members {
                present: count,
                total: members.len(),
                quorum,
                missing: missing(members),
            });
        }
        // Without any weight there is no share to fall short of.
        let Some(shares) = shares_of(members.iter().map(|member| member.weight)) else {
            return Ok(());
        };
        let shares = members.iter().zip(shares).filter(|(member, _)| member.missing.is_none());
        let share: f64 = shares.map(|(_, share)| share).sum();
        if share + ROUNDING < self.weight {
            return Err(QuorumError::Weight {
                present: share,
                quorum: self.weight,
                missing: missing(members),
            });
        }
        Ok(())
    }

    /// So many more of the members may be lost, whichever they are, until those that are left may not answer any more. None where
    /// they may not already.
    ///
    /// ```
    /// use chorus_coordinator::quorum::{Attendance, Quorum};
    ///
    /// let member = |weight| Attendance { name: "member", weight, missing: None };
    /// let members = [member(1.0), member(2.0), member(1.0)];
    /// assert_eq!(Quorum { members: 1, weight: 0.0 }.to_spare(&members), 2);
    /// assert_eq!(Quorum { members: 1, weight: 0.5 }.to_spare(&members), 1);
    /// ```
    pub fn to_spare(&self, members: &[Attendance<'_>]) -> usize {
        // The worst that can happen is that the heaviest are lost.
        let mut left: Vec<Attendance<'_>> = members.to_vec();
        left.sort_by(|one, other| other.weight.total_cmp(&one.weight));
        let present: Vec<usize> = left
            .iter()
            .enumerate()
            .filter(|(_, member)| member.missing.is_none())
            .map(|(place, _)| place)
            .collect();
        let may_be_lost = present.into_iter().take_while(|place| {
            if let Some(member) = left.get_mut(*place) {
                member.missing = Some("lost");
            }
            self.check(&left).is_ok()
        });
        may_be_lost.count()
    }
}

fn missing(members: &[Attendance<'_>]) -> String {
    let names = members.iter().filter_map(|member| Some((member.name, member.missing?)));
    let names: Vec<String> = names.map(|(name, reason)| format!("{name} ({reason})")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members<'a>(missing: &[&str]) -> Vec<Attendance<'a>> {
        [("alto", 0.6), ("bass", 0.1), ("tenor", 0.3)]
            .map(|(name, weight)| Attendance {
                name,
                weight,
                missing: missing.contains(&name).then_some("no answer within 5 s"),
            })
            .to_vec()
    }

    #[test]
    fn too_few_members_are_named_with_their_reasons() {
        let quorum = Quorum { members: 2, weight: 0.0 };
        assert_eq!(quorum.check(&members(&["alto"])), Ok(()));
        let error = quorum.check(&members(&["alto", "tenor"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "1 of 3 members take part, the quorum is 2; missing: alto (no answer within 5 s), tenor (no answer \
             within 5 s)"
        );
    }

    #[test]
    fn too_little_weight_is_refused_and_exactly_enough_is_not() {
        let quorum = Quorum { members: 1, weight: 0.4 };
        assert_eq!(quorum.check(&members(&["alto"])), Ok(()));
        let error = quorum.check(&members(&["alto", "bass"])).unwrap_err();
        assert!(error.to_string().contains("0.300 of the weight, the quorum is 0.4"), "{error}");
        assert!(error.to_string().contains("alto"), "{error}");
    }

    #[test]
    fn huge_weights_have_shares_too() {
        let quorum = Quorum { members: 1, weight: 0.5 };
        let mut members = members(&["alto", "bass"]);
        members.iter_mut().for_each(|member| member.weight = 1e308);
        let error = quorum.check(&members).unwrap_err();
        assert!(error.to_string().contains("0.333 of the weight"), "{error}");
        members[1].missing = None;
        assert_eq!(quorum.check(&members), Ok(()));
    }

    #[test]
    fn nobody_is_never_enough() {
        let none = Quorum { members: 0, weight: 0.0 };
        assert!(none.check(&members(&["alto", "bass", "tenor"])).is_err());
        assert!(none.check(&[]).is_err());
    }

    #[test]
    fn to_spare_are_those_of_whom_any_may_be_lost() {
        let quorums = [(1, 0.0), (2, 0.0), (1, 0.5), (2, 0.6), (3, 0.0), (1, 1.0)];
        for (members, weight) in quorums {
            let quorum = Quorum { members, weight };
            for present in 0..8_usize {
                let members: Vec<Attendance<'_>> = [(0, 3.0), (1, 1.0), (2, 2.0)]
                    .map(|(place, weight)| {
                        let missing = (present & (1 << place) == 0).then_some("down");
                        Attendance { name: "member", weight, missing }
                    })
                    .to_vec();
                // Every set of so many losses leaves a quorum.
                let holds = |lost: usize| {
                    (0..8_usize).filter(|set| set & !present == 0 && set.count_ones() as usize == lost).all(
                        |set| {
                            let left = members.iter().enumerate().map(|(place, member)| Attendance {
                                missing: member.missing.or((set & (1 << place) != 0).then_some("lost")),
                                ..*member
                            });
                            quorum.check(&left.collect::<Vec<_>>()).is_ok()
                        },
                    )
                };
                let expected =
                    (1..=3).take_while(|lost| *lost <= present.count_ones() as usize && holds(*lost)).count();
                assert_eq!(quorum.to_spare(&members), expected, "{quorum:?} {present:b}");
            }
        }
    }
}
