//! Student, members and ensemble on one text. Knows nothing about training.

use std::collections::BTreeMap;

use anyhow::Context as _;
use chorus_model::{LanguageModel, Precision, evaluate, open_device};
use chorus_proto::v1::{FusionOptions, ScoreRequest};
use serde_json::{Value, json};

use super::args::DistillArgs;
use crate::client::{sentence_of_status, table};
use crate::learn::{RunningEnsemble, input_of, parts};

/// Tokens of one request, far below every server's limit.
const PART: usize = 8192;

/// Nats a token of everybody.
pub(super) struct Compared {
    tokens: usize,
    student: (String, f64),
    members: Vec<(String, f64)>,
    ensemble: f64,
}

/// Scores a text with the student in this process, and with the running ensemble.
pub(super) async fn compare(
    arguments: &DistillArgs,
    ensemble: &RunningEnsemble,
    tokens: &[u32],
) -> anyhow::Result<Compared> {
    let directory = arguments.output.out.clone();
    let of_student = tokens.to_vec();
    let student = tokio::task::spawn_blocking(move || -> anyhow::Result<(String, f64)> {
        let model = LanguageModel::load_as(&directory, &open_device("cpu")?, Precision::F32, None)?;
        let nats = evaluate(&model, &of_student, |_| {})?.nats_per_token();
        Ok((model.config().name.clone(), nats.context("the text has no token")?))
    });
    let student = student.await.context("the student's evaluation ended in a defect")??;
    let (mut fused, mut of_members) = (0.0, BTreeMap::<String, f64>::new());
    for part in parts(tokens.len(), PART, arguments.context_tokens) {
        let request = ScoreRequest {
            input: input_of(part.read(tokens)),
            fusion: Some(FusionOptions { allow_degraded: Some(false), ..FusionOptions::default() }),
            per_token: true,
        };
        let scored = ensemble.client.clone().score(request).await;
        let reply = scored.map_err(|status| sentence_of_status(&status, &ensemble.address))?.into_inner();
        for row in reply.token_scores.get(part.context()..).unwrap_or_default() {
            fused += row.log_prob.context("the ensemble's rule has no log-probabilities")?;
            for (member, log_prob) in reply.members.iter().zip(&row.member_log_probs) {
                *of_members.entry(member.name.clone()).or_default() += log_prob;
            }
        }
    }
    let per_token = |log_prob: f64| -log_prob / tokens.len() as f64;
    Ok(Compared {
        tokens: tokens.len(),
        student,
        members: of_members.into_iter().map(|(name, log_prob)| (name, per_token(log_prob))).collect(),
        ensemble: per_token(fused),
    })
}

impl Compared {
    fn best_member(&self) -> (&str, f64) {
        let best = self.members.iter().min_by(|(_, one), (_, other)| one.total_cmp(other));
        best.map_or(("nobody", f64::INFINITY), |(name, nats)| (name.as_str(), *nats))
    }

    /// The share of the way from the best member to the ensemble; none where there is no way.
    fn closed(&self) -> Option<f64> {
        let (_, best) = self.best_member();
        let gap = best - self.ensemble;
        (gap > 0.0).then(|| (best - self.student.1) / gap)
    }

    pub(super) fn table(&self, origin: &str) -> String {
        let row = |name: String, nats: f64| vec![name, format!("{:.4}", nats.exp()), format!("{nats:.4}")];
        let (best, nats) = self.best_member();
        let rows = [
            row(format!("student ({})", self.student.0), self.student.1),
            row(format!("best member ({best})"), nats),
            row("ensemble".to_owned(), self.ensemble),
        ];
        let closed = match self.closed() {
            Some(closed) => format!(
                " The student has gone {:.0} % of the way from the best member to the ensemble.\n",
                100.0 * closed
            ),
            None => " The ensemble is no better than its best member, so there is no way to go.\n".to_owned(),
        };
        format!(
            " {} tokens of {origin}\n\n{}\n{closed}",
            self.tokens,
            table(&["", "perplexity", "nats/token"], &[], rows)
        )
    }

    pub(super) fn json(&self) -> Value {
        let of = |nats: f64| json!({ "perplexity": nats.exp(), "nats_per_token": nats });
        let (best, nats) = self.best_member();
        let members: BTreeMap<&str, f64> =
            self.members.iter().map(|(name, nats)| (name.as_str(), nats.exp())).collect();
        json!({
            "tokens": self.tokens,
            "student": of(self.student.1),
            "ensemble": of(self.ensemble),
            "best_member": { "name": best, "perplexity": nats.exp(), "nats_per_token": nats },
            "members": members,
            "closed": self.closed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(student: f64, ensemble: f64) -> Compared {
        let members = [("alto", 3.0), ("bass", 2.0)].map(|(name, nats)| (name.to_owned(), nats));
        Compared { tokens: 10, student: ("tiny".to_owned(), student), members: members.to_vec(), ensemble }
    }

    #[test]
    fn the_way_from_the_best_member_to_the_ensemble_is_measured() {
        let half = compared(1.75, 1.5);
        assert_eq!(half.closed(), Some(0.5));
        assert_eq!(half.json()["best_member"]["name"], "bass");
        let text = half.table("test.txt");
        assert!(text.contains("50 % of the way") && text.contains("best member (bass)"), "{text}");
        assert_eq!(compared(2.5, 1.5).closed(), Some(-1.0));
        assert_eq!(compared(1.0, 2.0).closed(), None);
        assert!(compared(1.0, 2.0).table("t").contains("no way to go"));
    }
}
