//! `chorus classify`: which of some labels texts have; and how sure of them each member should be, learned on texts whose
//! labels are known.

mod labels_file;
mod tally;
mod texts;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use chorus_proto::v1::{ClassifyReply, ClassifyRequest, FusionOptions};
use chorus_tune::calibrate_labels;
use clap::ArgGroup;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use self::labels_file::{FileMember, LabelsFile};
use self::tally::Tally;
use self::texts::LabelledText;
use super::{
    connect::{ConnectArgs, connect, sentence_of_status},
    format::{number, print, print_json, rule_name, table, warn_of_missing},
    fusion::FusionArgs,
    many::{Degraded, in_flight},
    reply,
    traced::traced,
};
use crate::failure::UsageError;

const EXAMPLES: &str = "\
Examples:
  chorus classify \"a gorgeous , witty film\" --labels sentiment.toml
  chorus classify --labels sentiment.toml --learn dev.tsv --out learned.toml
  chorus classify --labels learned.toml --test test.tsv
  chorus classify --labels learned.toml --test test.tsv --rule threshold_vote \\
                  --threshold 0.5
  chorus classify --labels learned.toml --file texts.txt --json

The file of labels:
  [[labels]]
  name = \"positive\"
  template = \"<positive> {text}\"   # {text} is where the text goes
  column = \"1\"                     # in TEXT<TAB>LABEL (default: the name)
  [[labels]]
  name = \"negative\"
  template = \"<negative> {text}\"
  column = \"0\"

Every member scores a label by the log-likelihood of its template with the
text in it, multiplied by the member's scale, plus its bias for the label; both
are 1 and 0 until they are learned. The rule makes one distribution of labels
of the members', as it does of tokens; a vote is a vote for labels.

--learn finds scales and biases of all members on lines of TEXT<TAB>LABEL and
writes them, with the labels, to --out. --test counts how often the ensemble
and each member are right.

With --json one object a text with the keys
  labels                 [{name, probability}], best first, with votes under
                         threshold_vote
  members                [{name, weight, log_likelihoods, probabilities}], in
                         the order of the file of labels
  rule, participants, missing
or, with --test, one object: rule, texts, accuracy, degraded (answers without
some member), members [{name, texts, accuracy}].";

/// Say which of some labels a text has, by the members' log-likelihoods
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("texts").required(true).args(["text", "file", "test", "learn"]))]
pub(crate) struct ClassifyArgs {
    /// A text
    text: Option<String>,
    /// The labels, and what was learned of the members (TOML)
    #[arg(long, value_name = "FILE")]
    labels: PathBuf,
    /// Classify every line of a file; `-` reads stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Count how often the labels of a file of TEXT<TAB>LABEL are found
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Learn scales and biases on a file of TEXT<TAB>LABEL
    #[arg(long, value_name = "FILE", requires = "out")]
    learn: Option<PathBuf>,
    /// Where --learn writes labels, scales and biases; it must not exist
    #[arg(long, value_name = "FILE", requires = "learn")]
    out: Option<PathBuf>,
    /// Texts that are asked about at a time
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = in_flight)]
    in_flight: usize,
    #[command(flatten)]
    fusion: FusionArgs,
    #[command(flatten)]
    connect: ConnectArgs,
}

/// What every text is asked with.
struct Asking<'a> {
    labels: &'a LabelsFile,
    /// Whether what was learned counts.
    calibrated: bool,
    fusion: Option<FusionOptions>,
    connect: &'a ConnectArgs,
    in_flight: usize,
}

/// Runs the command.
///
/// # Errors
/// A file can't be read, written or is none, the ensemble can't be reached or refuses, or stdout can't be written.
pub(crate) async fn run(arguments: ClassifyArgs) -> anyhow::Result<()> {
    let labels = LabelsFile::read(&arguments.labels)?;
    let asking = Asking {
        labels: &labels,
        calibrated: arguments.learn.is_none(),
        fusion: arguments.fusion.options()?,
        connect: &arguments.connect,
        in_flight: arguments.in_flight,
    };
    match (&arguments.text, &arguments.file, &arguments.test, &arguments.learn) {
        (Some(text), ..) => {
            let text = LabelledText { text: text.clone(), label: None };
            asking.each(vec![text], |_, reply| asking.show(&reply)).await
        }
        (_, Some(file), ..) => {
            let texts = texts::read(file, false, &labels)?;
            let mut degraded = Degraded::default();
            let show = |_: &LabelledText, reply: ClassifyReply| {
                degraded.count(reply.participation.as_ref());
                asking.show_line(&reply)
            };
            asking.each(texts, show).await?;
            degraded.warn();
            Ok(())
        }
        (_, _, Some(file), _) => asking.test(file).await,
        (_, _, _, Some(file)) => asking.learn(file, arguments.out.as_deref().unwrap_or(Path::new(""))).await,
        // clap has refused it.
        (None, None, None, None) => Err(UsageError("there is no text".to_owned()).into()),
    }
}

impl Asking<'_> {
    /// Asks about every text, several at a time, and hands the answers on in the order of the texts.
    async fn each(
        &self,
        texts: Vec<LabelledText>,
        mut take: impl FnMut(&LabelledText, ClassifyReply) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let address = &self.connect.server()?;
        let client = connect(address).await?;
        let asked = texts.iter().map(|text| {
            let mut client = client.clone();
            let request = self.request(&text.text);
            async move {
                let reply = client.classify(traced(request)).await;
                Ok((text, reply.map_err(|status| sentence_of_status(&status, address))?.into_inner()))
            }
        });
        let mut answers = stream::iter(asked).buffered(self.in_flight);
        while let Some((text, reply)) = answers.try_next().await.map_err(|error: anyhow::Error| error)? {
            take(text, reply)?;
        }
        Ok(())
    }

    fn request(&self, text: &str) -> ClassifyRequest {
        ClassifyRequest {
            text: text.to_owned(),
            labels: self.labels.labels(),
            fusion: self.fusion.clone(),
            calibration: if self.calibrated { self.labels.calibration() } else { Vec::new() },
        }
    }

    fn show(&self, reply: &ClassifyReply) -> anyhow::Result<()> {
        if self.connect.json {
            return print_json(&json_of(reply));
        }
        warn_of_missing(reply.participation.as_ref());
        print(&self.label_table(reply))
    }

    /// A line for each text: its label and how likely that is.
    fn show_line(&self, reply: &ClassifyReply) -> anyhow::Result<()> {
        if self.connect.json {
            return print_json(&json_of(reply));
        }
        let best = reply.labels.first().cloned().unwrap_or_default();
        print(&format!("{}\t{:.4}\n", best.name, best.probability))
    }

    fn label_table(&self, reply: &ClassifyReply) -> String {
        let ensemble = format!("ensemble ({})", rule_name(reply.rule));
        let mut header = vec!["label", ensemble.as_str()];
        if reply.labels.iter().any(|label| label.votes.is_some()) {
            header.push("votes");
        }
        header.extend(reply.members.iter().map(|member| member.name.as_str()));
        let rows = reply.labels.iter().map(|label| {
            let place = self.labels.labels.iter().position(|known| known.name == label.name);
            let members = reply
                .members
                .iter()
                .map(|member| number(place.and_then(|place| member.probabilities.get(place).copied())));
            let first = [label.name.clone(), number(Some(label.probability))];
            first.into_iter().chain(label.votes.map(|votes| votes.to_string())).chain(members).collect()
        });
        table(&header, &[], rows)
    }

    async fn test(&self, file: &Path) -> anyhow::Result<()> {
        let texts = texts::read(file, true, self.labels)?;
        let mut tally = Tally::default();
        let mut rule = String::new();
        let count = |text: &LabelledText, reply: ClassifyReply| {
            rule = rule_name(reply.rule);
            if let Some((place, label)) =
                text.label.and_then(|place| Some((place, self.labels.labels.get(place)?)))
            {
                tally.count(&reply, &label.name, place);
            }
            Ok(())
        };
        self.each(texts, count).await?;
        if self.connect.json { print_json(&tally.json(&rule)) } else { print(&tally.table(&rule)) }
    }

    async fn learn(&self, file: &Path, out: &Path) -> anyhow::Result<()> {
        let texts = texts::read(file, true, self.labels)?;
        if out.exists() {
            bail!("{} is there already; choose another file for --out", out.display());
        }
        let labels: Vec<usize> = texts.iter().filter_map(|text| text.label).collect();
        let mut members: Vec<(String, Vec<Vec<f64>>)> = Vec::new();
        let keep = |_: &LabelledText, reply: ClassifyReply| {
            if members.is_empty() {
                members = reply.members.iter().map(|member| (member.name.clone(), Vec::new())).collect();
            }
            let names = reply.members.iter().map(|member| &member.name);
            if !names.eq(members.iter().map(|(name, _)| name)) {
                bail!("a member was lost or came back while the texts were asked about; try again");
            }
            for ((_, rows), member) in members.iter_mut().zip(reply.members) {
                rows.push(member.log_likelihoods);
            }
            Ok(())
        };
        self.each(texts, keep).await?;
        let mut learned = LabelsFile { members: Vec::new(), ..self.labels.clone() };
        for (name, rows) in members {
            let found = calibrate_labels(&rows, &labels).with_context(|| format!("member {name:?}"))?;
            learned.members.push(FileMember { name, scale: found.scale, biases: found.biases });
        }
        std::fs::write(out, learned.to_toml()?).with_context(|| format!("can't write {}", out.display()))?;
        if self.connect.json {
            return print_json(&learned);
        }
        let mut header = vec!["member", "scale"];
        header.extend(learned.labels.iter().map(|label| label.name.as_str()));
        let rows = learned.members.iter().map(|member| {
            let numbers = std::iter::once(&member.scale).chain(&member.biases);
            std::iter::once(member.name.clone()).chain(numbers.map(|value| number(Some(*value)))).collect()
        });
        print(&table(&header, &[], rows))
    }
}

fn json_of(reply: &ClassifyReply) -> serde_json::Value {
    let labels = reply.labels.iter().map(|label| {
        let mut object = json!({ "name": label.name, "probability": label.probability });
        if let Some(votes) = label.votes {
            object["votes"] = json!(votes);
        }
        object
    });
    let members = reply.members.iter().map(|member| {
        json!({
            "name": member.name,
            "weight": member.weight,
            "log_likelihoods": member.log_likelihoods,
            "probabilities": member.probabilities,
        })
    });
    let mut object = serde_json::Map::new();
    object.insert("rule".into(), json!(rule_name(reply.rule)));
    object.insert("labels".into(), labels.collect());
    object.insert("members".into(), members.collect());
    reply::insert_participation(&mut object, reply.participation.as_ref());
    serde_json::Value::Object(object)
}
