//! What `chorus tune` says it learned: a table, or JSON. Knows nothing about how it was learned.

use std::collections::BTreeMap;
use std::path::Path;

use chorus_coordinator::fusion::Rule;
use chorus_tune::CrossValidation;
use serde_json::{Value, json};

use super::learned::{Learned, Perplexities, Quality};
use crate::client::table as table_of;

/// For people.
pub(super) fn table(rule: Rule, learned: &Learned, origin: &str) -> String {
    let head = format!(" {rule}, learned by {} on {} tokens of {origin}\n\n", learned.method, learned.tokens);
    let body = match &learned.quality {
        Quality::Perplexity(perplexities) => of_perplexities(learned, perplexities),
        Quality::Accuracy { choice, equal } => {
            let rows = learned.members.iter().zip(&learned.weights);
            let rows = rows.map(|(name, weight)| vec![name.clone(), format!("{weight:.4}")]);
            let best = choice.best;
            format!(
                "{}\n threshold {}: the winner is the token that came for {:.2} % of the tokens ({:.2} % with equal \
                 weights);\n for {:.2} % nobody votes, and the weighted average decides\n",
                table_of(&["member", "weight"], &[], rows),
                best.threshold,
                100.0 * best.accuracy,
                100.0 * equal,
                100.0 * best.by_weighted_average
            )
        }
    };
    format!("{head}{body}\n")
}

fn of_perplexities(learned: &Learned, found: &Perplexities) -> String {
    let mut header = vec!["member", "perplexity", "weight"];
    if found.folds.is_some() {
        header.extend(["over folds", "spread"]);
    }
    header.push("without it");
    if found.values.as_ref().is_some_and(|values| values.members.iter().all(|value| value.shapley.is_some()))
    {
        header.push("worth in nats");
    }
    let rows = learned.members.iter().enumerate().map(|(member, name)| {
        let mut row = vec![
            name.clone(),
            perplexity(found.members.get(member).copied()),
            format!("{:.4}", learned.weights.get(member).copied().unwrap_or_default()),
        ];
        if let Some(spread) = found.folds.as_ref().and_then(|folds| folds.weights.get(member)) {
            row.extend([format!("{:.4}", spread.mean), format!("{:.4}", spread.deviation)]);
        }
        let others = |set: &&super::learned::Set| {
            set.members.len() + 1 == learned.members.len() && !set.members.contains(&member)
        };
        row.push(perplexity(learned.sets.iter().find(others).and_then(|set| set.value)));
        if let Some(value) = found.values.as_ref().and_then(|values| values.members.get(member)) {
            row.extend(value.shapley.map(|value| format!("{value:.4}")));
        }
        row
    });
    let mut text = table_of(&header, &[], rows);
    text.push_str(&format!(
        "\n perplexity {:.4} with these weights, {:.4} with equal ones; at most {:.1e} nats a token from the optimum\n",
        found.learned, found.equal, found.duality_gap
    ));
    if let Some(folds) = &found.folds {
        text.push_str(&format!(
            " held out, in {} folds: {:.4} with learned weights, {:.4} with equal ones\n",
            folds.folds.len(),
            folds.perplexity,
            folds.equal_perplexity
        ));
    }
    text
}

fn perplexity(value: Option<f64>) -> String {
    match value {
        Some(value) if value.is_finite() => format!("{value:.4}"),
        Some(_) => "infinite".to_owned(),
        None => "-".to_owned(),
    }
}

/// For programs; the keys are documented in the help text.
pub(super) fn json(rule: Rule, learned: &Learned, file: &Path) -> Value {
    let by_member = |values: &[f64]| -> BTreeMap<&str, f64> {
        learned.members.iter().map(String::as_str).zip(values.iter().copied()).collect()
    };
    let is_vote = matches!(learned.quality, Quality::Accuracy { .. });
    let sets = learned.sets.iter().map(|set| {
        let names: Vec<&String> =
            set.members.iter().filter_map(|member| learned.members.get(*member)).collect();
        let key = if is_vote { "accuracy" } else { "perplexity" };
        json!({ "members": names, "weights": set.weights, key: set.value })
    });
    let mut object = json!({
        "rule": rule.name(),
        "method": learned.method,
        "tokens": learned.tokens,
        "file": file,
        "weights": by_member(&learned.weights),
        "sets": sets.collect::<Vec<Value>>(),
    });
    match &learned.quality {
        Quality::Perplexity(found) => {
            object["perplexity"] = json!({ "members": by_member(&found.members), "equal": found.equal, "learned": found.learned });
            object["duality_gap"] = json!(found.duality_gap);
            if let Some(folds) = &found.folds {
                object["folds"] = folds_json(folds, &by_member);
            }
            if let Some(values) = &found.values {
                let values = values.members.iter().map(|value| {
                    let of_member = json!({
                        "leave_one_out": value.leave_one_out,
                        "perplexity_without": value.perplexity_without,
                        "shapley": value.shapley,
                    });
                    (value.name.clone(), of_member)
                });
                object["values"] = values.collect();
            }
        }
        Quality::Accuracy { choice, equal } => {
            let point = |point: &chorus_tune::vote::ThresholdPoint| {
                json!({
                    "threshold": point.threshold,
                    "accuracy": point.accuracy,
                    "by_weighted_average": point.by_weighted_average,
                })
            };
            let mut threshold = point(&choice.best);
            threshold["curve"] = choice.curve.iter().map(point).collect();
            threshold["equal_accuracy"] = json!(equal);
            object["threshold"] = threshold;
        }
    }
    object
}

fn folds_json<'a>(folds: &CrossValidation, by_member: &impl Fn(&[f64]) -> BTreeMap<&'a str, f64>) -> Value {
    let each = folds.folds.iter().map(|fold| {
        json!({
            "held_out": [fold.held_out.start, fold.held_out.end],
            "weights": by_member(&fold.learned.weights),
            "perplexity": fold.perplexity,
            "equal_perplexity": fold.equal_perplexity,
        })
    });
    let spread: Vec<f64> = folds.weights.iter().map(|spread| spread.deviation).collect();
    json!({
        "folds": each.collect::<Vec<Value>>(),
        "spread": by_member(&spread),
        "perplexity": folds.perplexity,
        "equal_perplexity": folds.equal_perplexity,
    })
}
