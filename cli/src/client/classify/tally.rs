//! How often the ensemble and each member are right. Knows nothing about how texts are classified.

use chorus_proto::v1::ClassifyReply;
use serde_json::{Value, json};

use crate::client::table;

/// Counts over texts whose labels are known.
#[derive(Debug, Default)]
pub(super) struct Tally {
    texts: usize,
    right: usize,
    /// By member, in the order of the first answer: its name, the texts that it took part in, and those where it was right.
    members: Vec<(String, usize, usize)>,
    degraded: usize,
}

impl Tally {
    /// One more answer, to a text with this label.
    pub(super) fn count(&mut self, reply: &ClassifyReply, name: &str, place: usize) {
        self.texts += 1;
        self.right += usize::from(reply.labels.first().is_some_and(|label| label.name == name));
        let is_degraded =
            reply.participation.as_ref().is_some_and(|participation| !participation.missing.is_empty());
        self.degraded += usize::from(is_degraded);
        for member in &reply.members {
            let is_right = likeliest(&member.probabilities) == Some(place);
            match self.members.iter_mut().find(|(name, ..)| *name == member.name) {
                Some((_, texts, right)) => {
                    *texts += 1;
                    *right += usize::from(is_right);
                }
                None => self.members.push((member.name.clone(), 1, usize::from(is_right))),
            }
        }
    }

    /// A row for the ensemble and one for each member, with the standard error of each share.
    pub(super) fn table(&self, rule: &str) -> String {
        let row = |name: String, right: usize, texts: usize| {
            let accuracy = right as f64 / texts.max(1) as f64;
            let error = (accuracy * (1.0 - accuracy) / texts.max(1) as f64).sqrt();
            vec![
                name,
                format!("{:.2} %", 100.0 * accuracy),
                format!("± {:.2}", 100.0 * error),
                texts.to_string(),
            ]
        };
        let ensemble = row(format!("ensemble ({rule})"), self.right, self.texts);
        let members = self.members.iter().map(|(name, texts, right)| row(name.clone(), *right, *texts));
        let mut text = table(
            &["", "accuracy", "standard error", "texts"],
            &[],
            std::iter::once(ensemble).chain(members),
        );
        if self.degraded > 0 {
            text.push_str(&format!("\n {} answers were given without some member.\n", self.degraded));
        }
        text
    }

    /// The same as JSON.
    pub(super) fn json(&self, rule: &str) -> Value {
        let share = |right: usize, texts: usize| right as f64 / texts.max(1) as f64;
        let members = self.members.iter().map(
            |(name, texts, right)| json!({ "name": name, "texts": texts, "accuracy": share(*right, *texts) }),
        );
        json!({
            "rule": rule,
            "texts": self.texts,
            "accuracy": share(self.right, self.texts),
            "degraded": self.degraded,
            "members": members.collect::<Value>(),
        })
    }
}

/// The place of the largest; of equal ones the first.
fn likeliest(probabilities: &[f64]) -> Option<usize> {
    let places = (0..probabilities.len()).rev();
    places.max_by(|one, other| probabilities[*one].total_cmp(&probabilities[*other]))
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::{LabelProbability, MemberLabels, Participation};

    use super::*;

    fn reply(label: &str, members: &[(&str, [f64; 2])]) -> ClassifyReply {
        ClassifyReply {
            labels: vec![LabelProbability { name: label.into(), ..LabelProbability::default() }],
            members: members
                .iter()
                .map(|(name, probabilities)| MemberLabels {
                    name: (*name).to_owned(),
                    probabilities: probabilities.to_vec(),
                    ..MemberLabels::default()
                })
                .collect(),
            participation: Some(Participation::default()),
            ..ClassifyReply::default()
        }
    }

    #[test]
    fn everybody_is_counted_by_what_they_took_part_in() {
        let mut tally = Tally::default();
        tally.count(&reply("good", &[("alto", [0.9, 0.1]), ("bass", [0.4, 0.6])]), "good", 0);
        tally.count(&reply("good", &[("alto", [0.5, 0.5])]), "bad", 1);
        let json = tally.json("weighted_average");
        assert_eq!(json["accuracy"], 0.5);
        assert_eq!(json["members"][0], json!({ "name": "alto", "texts": 2, "accuracy": 0.5 }));
        assert_eq!(json["members"][1], json!({ "name": "bass", "texts": 1, "accuracy": 0.0 }));
        assert!(tally.table("threshold_vote").contains("50.00 %"));
    }
}
