//! `chorus rank --lists`: every line of a file is a context with its candidates. Some are in progress at a time; the best of
//! each comes in the order of the lists. Knows nothing about what they are compared by.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chorus_proto::v1::{RankReply, RankRequest};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::{
    candidates::{self, List},
    request_for, show,
};
use crate::client::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{print, print_json},
    many::{Degraded, in_flight},
    traced::traced,
};
use crate::text_file::{self, LARGEST_DATA, Text};

/// Lists from a file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Many lists")]
pub(super) struct ListArgs {
    /// Rank every list of FILE (`-` reads stdin), and print for each its best candidate or, with --json, one object
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "context", "scores"])]
    pub(super) lists: Option<PathBuf>,
    /// Lists in progress at a time
    #[arg(long, value_name = "N", requires = "lists", default_value_t = 4, value_parser = in_flight)]
    in_flight: usize,
}

/// Ranks every list of the file at `path` as `request` says, which has no candidates yet.
///
/// # Errors
/// The file can't be read or has a line that is no list, the ensemble can't be reached, stdout can't be written, or the first
/// list, by its line, that the ensemble refuses. The lists before it were answered then.
pub(super) async fn run(
    arguments: &ListArgs,
    path: &Path,
    request: RankRequest,
    server: &ConnectArgs,
) -> anyhow::Result<()> {
    let Text { text, origin } = text_file::read(path, LARGEST_DATA)?;
    let lists = candidates::of_lists(&text).with_context(|| origin.clone())?;
    let address = &server.server()?;
    let client = connect(address).await?;
    let answers = stream::iter(lists.iter().enumerate()).map(|(index, list)| {
        let mut client = client.clone();
        let request = request_for(list, &request);
        let origin = &origin;
        async move {
            let answer = client.rank(traced(request)).await;
            let answer = answer.map_err(|status| sentence_of_status(&status, address));
            let line = || format!("line {} of {origin}", index + 1);
            let answer = answer.with_context(line)?.into_inner();
            let best = if server.json { "" } else { best(list, &answer).with_context(line)? };
            anyhow::Ok((list, answer, best))
        }
    });
    let mut answers = std::pin::pin!(answers.buffered(arguments.in_flight));
    let mut degraded = Degraded::default();
    while let Some((list, answer, best)) = answers.try_next().await? {
        degraded.count(answer.participation.as_ref());
        match server.json {
            true => print_json(&object(list, &answer))?,
            false => print(&format!("{best}\n"))?,
        }
    }
    degraded.warn();
    Ok(())
}

/// What `--json` prints for a list.
fn object(list: &List, answer: &RankReply) -> serde_json::Value {
    let mut object = show::json_of(answer, &list.candidates);
    object.insert("context".to_owned(), json!(list.context));
    serde_json::Value::Object(object)
}

/// The best candidate's text, without the line end that it may end with.
fn best<'a>(list: &'a List, answer: &RankReply) -> anyhow::Result<&'a str> {
    let best = answer.candidates.first().context("the answer has no candidate")?;
    let text = show::text(best, &list.candidates);
    let text = text.context(
        "the best candidate has tokens and no text; expected a text for every candidate, or --json",
    )?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    if line.contains('\n') {
        bail!("the best candidate, {text:?}, has more than one line; expected --json");
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::RankedCandidate;

    use super::*;

    fn list() -> List {
        let line = r#"{"context": "c", "candidates": ["le chat\n", "le\nchat", {"tokens": [1]}]}"#;
        candidates::of_lists(line).unwrap().remove(0)
    }

    fn won(index: u32) -> RankReply {
        RankReply {
            candidates: vec![RankedCandidate { index, ..RankedCandidate::default() }],
            ..RankReply::default()
        }
    }

    #[test]
    fn the_best_is_printed_as_one_line() {
        assert_eq!(best(&list(), &won(0)).unwrap(), "le chat");
        for other in [1, 2] {
            assert!(best(&list(), &won(other)).unwrap_err().to_string().contains("--json"));
        }
    }

    #[test]
    fn an_object_has_the_context_and_the_texts() {
        let object = object(&list(), &won(0));
        assert_eq!(
            (&object["context"], &object["candidates"][0]["text"]),
            (&json!("c"), &json!("le chat\n"))
        );
    }
}
