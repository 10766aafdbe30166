//! `chorus rank`: candidates for a context, the best first; or for many contexts, the best of each. Knows nothing about how they are
//! scored.

mod candidates;
mod lists;
mod show;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chorus_proto::v1::{Normalization, RankRequest};
use clap::ValueEnum;

use self::candidates::{Candidate, List};
use self::lists::ListArgs;
use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{print, print_json, warn_of_missing},
    fusion::FusionArgs,
    input_of,
    traced::traced,
};
use crate::failure::UsageError;
use crate::text_file::{self, LARGEST_REQUEST, Text};
use crate::values::number;

const EXAMPLES: &str = "\
Examples:
  printf ' be\\n live\\n sleep\\n' | chorus rank - --context \"To be, or not to\"
  chorus rank nbest.txt --context \"$BEFORE\" --by per-token --top-n 10
  chorus rank nbest.tsv --scores --scale 0.6     # rescore what others found
  chorus rank words.txt --context \"$QUESTION\" --by prior --prior-context \"A:\"
  chorus rank --lists nbest.jsonl --scale 0.6 > best.txt

Every line of the file is a candidate, taken as it is: a space before a word
counts. With --scores a line is a number, a tab, and the candidate; candidates
are compared by scale * log-likelihood + number, as n-best lists of speech and
translation are rescored. What candidates begin with alike is computed once.

With --lists every line of the file is a context and its candidates,
  {\"context\": TEXT, \"candidates\": [CANDIDATE, ...]}
where a candidate is a text or {\"text\", \"tokens\", \"score\"}: tokens are what
is looked at where they are given, and the text what is printed. For each line
its best candidate is printed, in the order of the lines. The n-best lists of
  chorus generate --lines sources.txt --only alto --beam 12 --n-best 12 --json
are such lists after
  jq -c '{context: .prompt, candidates: [.end.hypotheses[]
          | {text, tokens, score}]}'

With --json one object (with --lists, one for each list) with the keys
  rule
  candidates             [{index, text, score, log_prob, tokens,
                         prior_log_prob, members}], best first; members are
                         the participants' own log-probabilities
  computed_tokens, total_tokens, cached_tokens
                         what each member read; what that would have been if
                         nothing was shared; what was kept from before
  participants, missing  names; [{name, reason}]
  context                with --lists, the list's";

/// Rank candidates for a context by the ensemble's log-likelihood
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RankArgs {
    /// A file with a candidate on each line; `-` reads stdin
    #[arg(required_unless_present = "lists")]
    file: Option<PathBuf>,
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
    #[arg(long, value_name = "X", value_parser = number, allow_negative_numbers = true)]
    scale: Option<f64>,
    /// Show the N best (default: all)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    top_n: Option<u32>,
    #[command(flatten)]
    lists: ListArgs,
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
    let request = arguments.request()?;
    let RankArgs { connect, context, .. } = arguments;
    match (&arguments.lists.lists, &arguments.file) {
        (Some(path), _) => lists::run(&arguments.lists, path, request, &connect).await,
        (None, Some(path)) => one(path, arguments.scores, context, request, &connect).await,
        // clap has refused it.
        (None, None) => Err(UsageError("there are no candidates".to_owned()).into()),
    }
}

impl RankArgs {
    /// What holds for every list: all but the context and its candidates.
    fn request(&self) -> anyhow::Result<RankRequest> {
        Ok(RankRequest {
            fusion: self.fusion.options()?,
            normalization: Normalization::from(self.by).into(),
            prior_context: self.prior_context.clone().map(input_of),
            scale: self.scale,
            top_n: self.top_n,
            ..RankRequest::default()
        })
    }
}

/// The request for a list, with everything else as in `request`.
fn request_for(list: &List, request: &RankRequest) -> RankRequest {
    RankRequest {
        context: list.context.clone().map(input_of),
        candidates: list.candidates.iter().map(Candidate::to_request).collect(),
        ..request.clone()
    }
}

/// Ranks the candidates of the file at `path`.
async fn one(
    path: &Path,
    scores: bool,
    context: Option<String>,
    request: RankRequest,
    server: &ConnectArgs,
) -> anyhow::Result<()> {
    let address = &server.server()?;
    let Text { text, origin } = text_file::read(path, LARGEST_REQUEST)?;
    let list = List { context, candidates: candidates::of_lines(&text, scores).context(origin)? };
    let reply = connect(address)
        .await?
        .rank(traced(request_for(&list, &request)))
        .await
        .map_err(|status| sentence_of_status(&status, address))?
        .into_inner();
    if server.json {
        return print_json(&show::json_of(&reply, &list.candidates));
    }
    warn_of_missing(reply.participation.as_ref());
    print(&show::ranking_table(&reply, &list.candidates))
}
