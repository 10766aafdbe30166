//! How answers look in a terminal: tables, numbers, quoted tokens, and printing that survives a closed pipe.
//!
//! Knows nothing about any one command.

use std::io::{self, Write as _};

use anyhow::Context as _;
use chorus_proto::v1::{Expectation, Participation, Rule, Start, start};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;

use crate::failure::{OutputClosed, warn};

/// Writes text to stdout at once, as it is.
///
/// # Errors
/// [`OutputClosed`] where the reader hung up; otherwise stdout can't be written.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        other => other.context("can't write to stdout"),
    }
}

/// Writes one JSON object on one line.
///
/// # Errors
/// As [`print`].
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let line = serde_json::to_string(value).context("can't write JSON")?;
    print(&format!("{line}\n"))
}

/// A borderless table under a header; the first column is text, the others are numbers unless `texts` names them.
pub(crate) fn table(header: &[&str], texts: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(Cell::new));
    for row in rows {
        table.add_row(row);
    }
    let numbers = header.iter().enumerate().skip(1);
    for (index, _) in numbers.filter(|(_, name)| !texts.contains(name)) {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    format!("{}\n", table.trim_fmt())
}

/// A number with four decimals, or a dash where there is none.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.4}"))
}

/// What models with other tokens can be compared by.
pub(super) fn nats_per_character(log_prob: f64, characters: usize) -> f64 {
    // A log-probability of zero has no sign.
    (0.0 - log_prob) / characters as f64
}

/// A token's text in quotes, with line ends and control characters written out.
pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// A rule's name as in documents and on the command line: `weighted_average`.
pub(super) fn rule_name(rule: i32) -> String {
    let rule = Rule::try_from(rule).unwrap_or(Rule::Unspecified);
    rule.as_str_name().trim_start_matches("RULE_").to_lowercase()
}

/// What a first token was conditioned on: `zero_state`, or `token 3`.
pub(super) fn start_name(start: Option<&Start>) -> String {
    match start.and_then(|start| start.start) {
        Some(start::Start::Token(id)) => format!("token {id}"),
        Some(start::Start::ZeroState(_)) => "zero_state".to_owned(),
        None => "unknown".to_owned(),
    }
}

/// "tenor (connection refused), bass (restarting)".
pub(super) fn missing_members(participation: &Participation) -> String {
    let members = participation.missing.iter();
    let named: Vec<String> = members
        .map(|member| match member.reason.as_str() {
            "" => member.name.clone(),
            reason => format!("{} ({reason})", member.name),
        })
        .collect();
    named.join(", ")
}

/// Who answered without whom, and what that is expected to cost: "without tenor (connection refused); perplexity 18.3 is
/// expected instead of 17.9".
pub(super) fn absence(participation: &Participation) -> String {
    let missing = missing_members(participation);
    if let Some(fallback) = &participation.fallback {
        return format!("by the fallback {} alone, without {missing}", fallback.name);
    }
    let expectation = participation.expectation.unwrap_or_default();
    let Expectation { perplexity, perplexity_of_all, accuracy, accuracy_of_all } = expectation;
    if let Some((perplexity, of_all)) = perplexity.zip(perplexity_of_all) {
        return format!("without {missing}; perplexity {perplexity:.2} is expected instead of {of_all:.2}");
    }
    if let Some((accuracy, of_all)) = accuracy.zip(accuracy_of_all) {
        let [accuracy, of_all] = [accuracy, of_all].map(|share| 100.0 * share);
        return format!("without {missing}; {accuracy:.1} % right are expected instead of {of_all:.1} %");
    }
    format!("without {missing}")
}

/// Says on stderr that an answer was made without some members.
pub(super) fn warn_of_missing(participation: Option<&Participation>) {
    if let Some(participation) = participation.filter(|participation| !participation.missing.is_empty()) {
        warn(&format!("answered {}", absence(participation)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_aligns_text_left_and_numbers_right() {
        let rows = [
            vec!["alto".to_owned(), "1.5".to_owned(), "cpu".to_owned()],
            vec!["b".to_owned(), "10.25".to_owned(), "cuda:0".to_owned()],
        ];
        assert_eq!(
            table(&["member", "weight", "device"], &["device"], rows),
            " member  weight  device\n alto       1.5  cpu\n b        10.25  cuda:0\n"
        );
    }

    #[test]
    fn an_absence_says_who_what_it_costs_and_who_answered_instead() {
        let missing = |name: &str| chorus_proto::v1::MissingMember {
            name: name.into(),
            reason: "killed".into(),
            ..Default::default()
        };
        let bass = Participation { missing: vec![missing("bass")], ..Participation::default() };
        assert_eq!(absence(&bass), "without bass (killed)");
        let costs = |expectation| absence(&Participation { expectation: Some(expectation), ..bass.clone() });
        let (perplexity, perplexity_of_all) = (Some(18.333), Some(17.0));
        assert_eq!(
            costs(Expectation { perplexity, perplexity_of_all, ..Expectation::default() }),
            "without bass (killed); perplexity 18.33 is expected instead of 17.00"
        );
        let (accuracy, accuracy_of_all) = (Some(0.35), Some(0.376));
        assert_eq!(
            costs(Expectation { accuracy, accuracy_of_all, ..Expectation::default() }),
            "without bass (killed); 35.0 % right are expected instead of 37.6 %"
        );
        let fallback = chorus_proto::v1::Fallback { name: "student".into(), tokens: Vec::new() };
        assert_eq!(
            absence(&Participation { fallback: Some(fallback), ..bass }),
            "by the fallback student alone, without bass (killed)"
        );
    }

    #[test]
    fn rules_are_named_as_in_the_documents() {
        assert_eq!(rule_name(Rule::WeightedAverage.into()), "weighted_average");
        assert_eq!(rule_name(Rule::LogitMax.into()), "logit_max");
    }

    #[test]
    fn control_characters_never_reach_the_terminal_from_a_table() {
        assert_eq!(quoted("\u{1b}[2J\n"), r#""\u{1b}[2J\n""#);
    }
}
