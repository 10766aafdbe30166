//! `chorus generate --lines`: every line of a file is a prompt. Many are in progress at a time; the answers come in the
//! order of the prompts, one a line.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chorus_proto::v1::{CompleteReply, GenerateRequest, Participation};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{absence, print, print_json},
    input_of, reply,
    traced::traced,
};
use crate::{
    failure::warn,
    text_file::{self, LARGEST_DATA},
};

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
    let mut degraded = 0;
    let mut first_absence = None;
    while let Some((prompt, answer)) = answers.try_next().await? {
        if let Some(participation) = answer.participation.as_ref().filter(|it| is_degraded(it)) {
            degraded += 1;
            first_absence.get_or_insert_with(|| absence(participation));
        }
        match server.json {
            true => print_json(&object(prompt, &answer))?,
            false => print(&format!("{}\n", answer.text))?,
        }
    }
    if let Some(absence) = first_absence {
        warn(&format!("{degraded} answers are not of all members; the first was given {absence}"));
    }
    Ok(())
}

fn is_degraded(participation: &Participation) -> bool {
    !participation.missing.is_empty() || participation.fallback.is_some()
}

/// What `--json` prints for a line.
fn object(prompt: &str, answer: &CompleteReply) -> Value {
    let mut object = reply::complete(answer);
    object.insert("prompt".to_owned(), json!(prompt));
    Value::Object(object)
}

fn in_flight(argument: &str) -> Result<usize, String> {
    let number = argument.parse().ok().filter(|number| (1..=1000).contains(number));
    number.ok_or_else(|| "a whole number from 1 to 1000 is needed".to_owned())
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

    #[test]
    fn the_number_in_flight_has_a_range() {
        assert_eq!(in_flight("1"), Ok(1));
        for wrong in ["0", "1001", "-1", "many"] {
            assert!(in_flight(wrong).unwrap_err().contains("from 1 to 1000"));
        }
    }
}
