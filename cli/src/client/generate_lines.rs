//! `chorus generate --lines`: every line of a file is a prompt. Many are in progress at a time; the answers come in the
//! order of the prompts, one a line.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chorus_proto::v1::{CompleteReply, GenerateRequest};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{print, print_json},
    input_of,
    many::{Degraded, in_flight},
    reply,
    traced::traced,
};
use crate::text_file::{self, LARGEST_DATA};

/// What ends an answer in any case, so that each is one line.
const LINE_END: &str = "\n";

/// Prompts from a file.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Many prompts")]
pub(super) struct LinesArgs {
    /// Continue every line of FILE (`-` reads stdin), and print one line for each: its continuation up to the first line
    /// end, or, with --json, one object
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub(super) lines: Option<PathBuf>,
    /// Prompts in progress at a time
    #[arg(long, value_name = "N", requires = "lines", default_value_t = 16, value_parser = in_flight)]
    in_flight: usize,
}

/// Continues every line of the file at `path` as `request` says, which has no prompt yet.
///
/// # Errors
/// The file can't be read, the ensemble can't be reached, stdout can't be written, or the first line, by its number, that
/// the ensemble refuses. The lines before it were answered then.
pub(super) async fn run(
    arguments: &LinesArgs,
    path: &Path,
    mut request: GenerateRequest,
    server: &ConnectArgs,
) -> anyhow::Result<()> {
    let text = text_file::read(path, LARGEST_DATA)?;
    if !request.stop.iter().any(|stop| stop == LINE_END) {
        request.stop.push(LINE_END.to_owned());
    }
    let address = &server.server()?;
    let client = connect(address).await?;
    let answers = stream::iter(text.text.lines().enumerate()).map(|(index, prompt)| {
        let (mut client, mut request) = (client.clone(), request.clone());
        let origin = &text.origin;
        async move {
            request.prompt = Some(input_of(prompt.to_owned()));
            let answer = client.complete(traced(request)).await;
            let answer = answer.map_err(|status| sentence_of_status(&status, address));
            let answer = answer.with_context(|| format!("line {} of {origin} has no answer", index + 1))?;
            anyhow::Ok((prompt, answer.into_inner()))
        }
    });
    let mut answers = std::pin::pin!(answers.buffered(arguments.in_flight));
    let mut degraded = Degraded::default();
    while let Some((prompt, answer)) = answers.try_next().await? {
        degraded.count(answer.participation.as_ref());
        match server.json {
            true => print_json(&object(prompt, &answer))?,
            false => print(&format!("{}\n", answer.text))?,
        }
    }
    degraded.warn();
    Ok(())
}

/// What `--json` prints for a line.
fn object(prompt: &str, answer: &CompleteReply) -> Value {
    let mut object = reply::complete(answer);
    object.insert("prompt".to_owned(), json!(prompt));
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_the_prompt_and_the_answer() {
        let answer = CompleteReply { text: "le chat".to_owned(), ..CompleteReply::default() };
        let object = object("the cat\t", &answer);
        assert_eq!(object["prompt"], "the cat\t");
        assert_eq!(object["text"], "le chat");
    }
}
