//! [`Figures`]: everything that a report shows. Knows nothing about pictures.

use chorus_tune::vote::ThresholdChoice;
use chorus_tune::{Calibration, CrossValidation, MemberValues, Sets};
use serde_json::{Value, json};

/// What was found.
pub(super) struct Figures {
    /// The text, and how many tokens of it.
    pub(super) origin: String,
    pub(super) tokens: usize,
    /// Tokens of it that not all members answered.
    pub(super) left_out: usize,
    pub(super) members: Vec<Member>,
    /// Perplexity of the ensemble: by what, and how much.
    pub(super) rules: Vec<(String, f64)>,
    pub(super) weights: Vec<f64>,
    pub(super) folds: CrossValidation,
    pub(super) sets: Sets,
    /// Where every member gives every token more than nothing.
    pub(super) values: Option<MemberValues>,
    /// Of the weighted average with the learned weights.
    pub(super) calibration: Calibration,
    /// The vote, with equal weights.
    pub(super) vote: ThresholdChoice,
}

/// A member.
pub(super) struct Member {
    pub(super) name: String,
    /// Its kind of network, and how many parameters it has.
    pub(super) architecture: String,
    pub(super) parameters: u64,
    pub(super) perplexity: f64,
    pub(super) calibration: Calibration,
}

impl Figures {
    /// The best member's perplexity.
    pub(super) fn best_member(&self) -> Option<&Member> {
        self.members.iter().min_by(|one, other| one.perplexity.total_cmp(&other.perplexity))
    }

    /// The ensemble's best perplexity, and by what.
    pub(super) fn best_rule(&self) -> Option<&(String, f64)> {
        self.rules.iter().min_by(|(_, one), (_, other)| one.total_cmp(other))
    }

    /// The same for programs.
    pub(super) fn json(&self) -> Value {
        let members = self.members.iter().zip(&self.weights).zip(&self.folds.weights);
        let members = members.map(|((member, weight), spread)| {
            let value = self.values.as_ref();
            let value =
                value.and_then(|values| values.members.iter().find(|value| value.name == member.name));
            json!({
                "name": member.name,
                "perplexity": member.perplexity,
                "weight": weight,
                "fold_mean": spread.mean,
                "fold_spread": spread.deviation,
                "leave_one_out": value.map(|value| value.leave_one_out),
                "shapley": value.and_then(|value| value.shapley),
                "calibration_error": member.calibration.expected_error,
                "accuracy": member.calibration.accuracy,
            })
        });
        let rules = self.rules.iter().map(|(name, perplexity)| (name.clone(), json!(perplexity)));
        json!({
            "text": self.origin,
            "tokens": self.tokens,
            "left_out_tokens": self.left_out,
            "members": members.collect::<Value>(),
            "perplexity": rules.collect::<Value>(),
            "calibration_error": self.calibration.expected_error,
            "accuracy": self.calibration.accuracy,
            "threshold": self.vote.best.threshold,
            "vote_accuracy": self.vote.best.accuracy,
        })
    }
}
