//! `chorus rank`: candidates for a context, the best first.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use chorus_proto::v1::{Normalization, RankCandidate, RankReply, RankRequest};
use clap::ValueEnum;
use serde_json::json;

use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{number, print, print_json, quoted, rule_name, table, warn_of_missing},
    fusion::FusionArgs,
    input_of, reply,
    traced::traced,
};
use crate::text_file::{self, LARGEST_REQUEST, Text};
use crate::values::number as any_number;

const EXAMPLES: &str = "\
Examples:
  printf ' be\\n live\\n sleep\\n' | chorus rank - --context \"To be, or not to\"
  chorus rank nbest.txt --context \"$BEFORE\" --by per-token --top-n 10
  chorus rank nbest.tsv --scores --scale 0.6     # rescore what others found
  chorus rank words.txt --context \"$QUESTION\" --by prior --prior-context \"A:\"

Every line of the file is a candidate, taken as it is: a space before a word
counts. With --scores a line is a number, a tab, and the candidate; candidates
are compared by scale * log-likelihood + number, as n-best lists of speech and
translation are rescored. What candidates begin with alike is computed once.

With --json one object with the keys
  rule
  candidates             [{index, text, score, log_prob, tokens,
                         prior_log_prob, members}], best first; members are
                         the participants' own log-probabilities
  computed_tokens, total_tokens, cached_tokens
                         what each member read; what that would have been if
                         nothing was shared; what was kept from before
  participants, missing  names; [{name, reason}]";

/// Rank candidates for a context by the ensemble's log-likelihood
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RankArgs {
    /// A file with a candidate on each line; `-` reads stdin
    file: PathBuf,
    /// What the candidates continue (default: nothing, they are texts from the beginning)
    #[arg(long, value_name = "TEXT")]
    context: Option<String>,
    /// What candidates are compared by
    #[arg(long, value_enum, default_value = "total")]
    by: By,
    /// With --by prior, in whose place the candidates are looked at as well (default: nothing)
    #[arg(long, value_name = "TEXT")]
    prior_context: Option<String>,
    /// Every line begins with a number and a tab: what somebody else holds the candidate for
    #[arg(long)]
    scores: bool,
    /// What log-likelihoods are multiplied by before that number is added (default: 1)
    #[arg(long, value_name = "X", value_parser = any_number, allow_negative_numbers = true)]
    scale: Option<f64>,
    /// Show the N best (default: all)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    top_n: Option<u32>,
    #[command(flatten)]
    fusion: FusionArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What of the log-likelihood candidates are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum By {
    /// All of it
    Total,
    /// Divided by the candidate's tokens
    PerToken,
    /// Less that after the prior context
    Prior,
}

impl From<By> for Normalization {
    fn from(by: By) -> Self {
        match by {
            By::Total => Self::Total,
            By::PerToken => Self::PerToken,
            By::Prior => Self::Prior,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The file can't be read or has a line that is no candidate, the ensemble can't be reached or refuses, or stdout can't be
/// written.
pub(crate) async fn run(arguments: RankArgs) -> anyhow::Result<()> {
    let address = &arguments.connect.server()?;
    let Text { text, origin } = text_file::read(&arguments.file, LARGEST_REQUEST)?;
    let candidates = read(&text, arguments.scores).context(origin)?;
    let candidate = |(score, text): &(Option<f64>, &str)| RankCandidate {
        continuation: Some(input_of((*text).to_owned())),
        score: *score,
    };
    let request = RankRequest {
        context: arguments.context.map(input_of),
        candidates: candidates.iter().map(candidate).collect(),
        fusion: arguments.fusion.options()?,
        normalization: Normalization::from(arguments.by).into(),
        prior_context: arguments.prior_context.map(input_of),
        scale: arguments.scale,
        top_n: arguments.top_n,
    };
    let reply = connect(address)
        .await?
        .rank(traced(request))
        .await
        .map_err(|status| sentence_of_status(&status, address))?
        .into_inner();
    if arguments.connect.json {
        return print_json(&json_of(&reply, &candidates));
    }
    warn_of_missing(reply.participation.as_ref());
    print(&ranking_table(&reply, &candidates))
}

/// The candidates of a file, each with its number where there are some.
fn read(text: &str, scores: bool) -> anyhow::Result<Vec<(Option<f64>, &str)>> {
    let mut candidates = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line_number = index + 1;
        let (score, candidate) = if scores {
            let (score, candidate) = line
                .split_once('\t')
                .with_context(|| format!("line {line_number} has no tab; expected NUMBER<TAB>CANDIDATE"))?;
            let score: f64 = score
                .trim()
                .parse()
                .with_context(|| format!("line {line_number} begins with {score:?}, which is no number"))?;
            (Some(score), candidate)
        } else {
            (None, line)
        };
        if candidate.is_empty() {
            bail!("line {line_number} has no candidate; expected at least one character");
        }
        candidates.push((score, candidate));
    }
    if candidates.is_empty() {
        bail!("there are no candidates; expected one on each line");
    }
    Ok(candidates)
}

fn ranking_table(reply: &RankReply, candidates: &[(Option<f64>, &str)]) -> String {
    let names = reply.participation.iter().flat_map(|participation| &participation.participants);
    let mut header = vec!["rank", "score", "log-probability", "tokens", "candidate"];
    let names: Vec<&str> = names.map(String::as_str).collect();
    header.splice(4..4, names.iter().copied());
    let rows = reply.candidates.iter().enumerate().map(|(rank, ranked)| {
        let text = candidates.get(ranked.index as usize).map_or("", |(_, text)| *text);
        let first = [
            (rank + 1).to_string(),
            number(Some(ranked.score)),
            number(Some(ranked.log_prob)),
            ranked.tokens.to_string(),
        ];
        let members = ranked.member_log_probs.iter().map(|log_prob| number(Some(*log_prob)));
        first.into_iter().chain(members).chain([quoted(text)]).collect()
    });
    table(&header, &["candidate"], rows)
}

fn json_of(reply: &RankReply, candidates: &[(Option<f64>, &str)]) -> serde_json::Value {
    let ranked = reply.candidates.iter().map(|ranked| {
        let mut object = json!({
            "index": ranked.index,
            "text": candidates.get(ranked.index as usize).map(|(_, text)| text),
            "score": ranked.score,
            "log_prob": ranked.log_prob,
            "tokens": ranked.tokens,
            "members": ranked.member_log_probs,
        });
        if let Some(prior) = ranked.prior_log_prob {
            object["prior_log_prob"] = json!(prior);
        }
        object
    });
    let mut object = serde_json::Map::new();
    object.insert("rule".into(), json!(rule_name(reply.rule)));
    object.insert("candidates".into(), ranked.collect());
    object.insert("computed_tokens".into(), json!(reply.computed_tokens));
    object.insert("total_tokens".into(), json!(reply.total_tokens));
    object.insert("cached_tokens".into(), json!(reply.cached_tokens));
    reply::insert_participation(&mut object, reply.participation.as_ref());
    serde_json::Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_lines_as_they_are() {
        assert_eq!(read(" a\nb\tc\n", false).unwrap(), [(None, " a"), (None, "b\tc")]);
        assert_eq!(read("-1.5\t a\n2\tb\tc\n", true).unwrap(), [(Some(-1.5), " a"), (Some(2.0), "b\tc")]);
    }

    #[test]
    fn lines_that_are_none_are_named() {
        for (text, scores, said) in [
            ("", false, "there are no candidates"),
            ("a\n\nb", false, "line 2 has no candidate"),
            ("1\ta\nb", true, "line 2 has no tab"),
            ("1\ta\nx\tb", true, "line 2 begins with \"x\", which is no number"),
            ("1\t", true, "line 1 has no candidate"),
        ] {
            let error = read(text, scores).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
