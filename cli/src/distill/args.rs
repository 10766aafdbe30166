//! The command line of `chorus distill`. Reads no file.

use std::path::{Path, PathBuf};

use chorus_model::train::TargetForm;

use crate::client::ConnectArgs;
use crate::failure::UsageError;
use crate::train::{NetworkArgs, OutputArgs, StepArgs};
use crate::values::number;

const EXAMPLES: &str = "\
Examples:
  chorus distill --data train.txt --valid valid.txt --out student --hidden 448
  chorus distill --data train.txt --valid valid.txt --out student --dense
  chorus distill --data train.txt --valid valid.txt --out student \\
                 --init-from alto --hidden 448 --dropout 0 --epochs 2 \\
                 --synthetic 6000000 --top-k 64
  chorus distill --data train.txt --valid valid.txt --out student --resume
  chorus up --fallback student

With --synthetic the ensemble first writes what is learned from: its members
know --data by heart, so what they say of it teaches less than what they say
of a text that is new to them. Millions of tokens read once or twice teach
most, without dropout, from the weights of the best member (--init-from).

The running ensemble is asked what it holds likely at every token of the text,
under its configured rule and weights: the --top-k likeliest tokens and what
all others have together, or with --dense whole distributions. That is kept in
--teacher, so that it is asked once, also when the command is stopped.
Then the student learns, as `chorus train` does, from
  H * cross entropy with the text + (1 - H) * T^2 * cross entropy with the
  ensemble at temperature T (Hinton, Vinyals and Dean 2015)
with H from --hard-weight and T from --temperature. In the end student, best
member and ensemble are compared on --test.

With --json one object with the keys
  tokens    of --test
  student, ensemble  {perplexity, nats_per_token}
  best_member        {name, perplexity, nats_per_token}
  members   {} by name: perplexity
  closed    the share of the way from the best member to the ensemble that the
            student has gone, in nats a token";

/// Train one student model from what the running ensemble says
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DistillArgs {
    /// The text to learn from (UTF-8)
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(crate) data: PathBuf,
    /// The text that decides when to stop (UTF-8)
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    pub(crate) valid: PathBuf,
    /// The text on which student, members and ensemble are compared (default: --valid)
    #[arg(long, value_name = "FILE", help_heading = "Files")]
    test: Option<PathBuf>,
    /// Where what the ensemble said is kept (default: --out with .teacher at its end)
    #[arg(long, value_name = "DIR", help_heading = "Files")]
    teacher: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,

    /// Learn from so many tokens that the ensemble wrote, instead of from --data itself: passages of --data, each with as much
    /// again that the ensemble writes after it
    #[arg(long, value_name = "N", help_heading = "Teacher")]
    pub(crate) synthetic: Option<usize>,
    /// With --synthetic: tokens of a passage
    #[arg(long, value_name = "N", default_value_t = 64, help_heading = "Teacher", requires = "synthetic")]
    pub(crate) passage_tokens: usize,
    /// With --synthetic: where what the ensemble wrote is kept
    #[arg(
        long,
        value_name = "DIR",
        default_value = "chorus-cache",
        help_heading = "Files",
        requires = "synthetic"
    )]
    pub(crate) cache: PathBuf,
    /// Ask for so many of the likeliest tokens, and the mass of all others
    #[arg(long, value_name = "K", default_value_t = 32, help_heading = "Teacher", conflicts_with = "dense")]
    top_k: u32,
    /// Ask for whole distributions
    #[arg(long, help_heading = "Teacher")]
    dense: bool,
    /// The temperature T of teacher and student, 0.1 to 20
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = number, help_heading = "Teacher")]
    pub(crate) temperature: f64,
    /// How much the text itself counts, 0 to 1; the ensemble counts the rest [default: 0.2; with --synthetic 0, since what was
    /// drawn says less than what it was drawn from]
    #[arg(long, value_name = "H", value_parser = number, help_heading = "Teacher")]
    hard_weight: Option<f64>,
    /// Tokens of the text that are asked about at once, and kept
    #[arg(long, value_name = "N", default_value_t = 2048, help_heading = "Teacher")]
    pub(crate) part_tokens: usize,
    /// Tokens that are read before each part, and not asked about
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Teacher")]
    pub(crate) context_tokens: usize,

    /// What the student's first token is conditioned on: a token (as in the vocabulary, or the text of one) or `zero-state`
    /// [default: the token of a line's end, where there is one]
    #[arg(long, value_name = "TOKEN", help_heading = "Vocabulary")]
    pub(crate) start: Option<String>,
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
    #[command(flatten)]
    pub(crate) steps: StepArgs,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

impl DistillArgs {
    /// Ranges that would otherwise show after hours of asking.
    ///
    /// # Errors
    /// The flag, and what is allowed.
    pub(super) fn check(&self) -> Result<(), UsageError> {
        if self.top_k == 0 || self.part_tokens == 0 {
            return Err(UsageError("--top-k and --part-tokens are at least 1".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.hard_weight()) {
            return Err(UsageError(format!("--hard-weight is {}; allowed: 0 to 1", self.hard_weight())));
        }
        if self.passage_tokens == 0 {
            return Err(UsageError("--passage-tokens is 0; allowed: at least 1".to_owned()));
        }
        if let Some(tokens) = self.synthetic.filter(|tokens| tokens / 2 < self.passage_tokens) {
            let least = 2 * self.passage_tokens;
            return Err(UsageError(format!(
                "--synthetic is {tokens}; allowed: at least {least}, one passage and what is written after it"
            )));
        }
        if !(0.1..=20.0).contains(&self.temperature) {
            return Err(UsageError(format!("--temperature is {}; allowed: 0.1 to 20", self.temperature)));
        }
        Ok(())
    }

    /// λ, the weight of the text itself.
    pub(super) fn hard_weight(&self) -> f64 {
        self.hard_weight.unwrap_or(if self.synthetic.is_some() { 0.0 } else { 0.2 })
    }

    /// How much of each distribution is asked for.
    pub(super) fn form(&self) -> TargetForm {
        if self.dense { TargetForm::Dense } else { TargetForm::TopK(self.top_k as usize) }
    }

    /// So many of the likeliest tokens; all where absent.
    pub(super) fn top_n(&self) -> Option<u32> {
        (!self.dense).then_some(self.top_k)
    }

    /// Where everybody is compared.
    pub(super) fn test(&self) -> &Path {
        self.test.as_deref().unwrap_or(&self.valid)
    }

    /// Where what the ensemble says is kept.
    pub(super) fn teacher(&self) -> PathBuf {
        self.teacher.clone().unwrap_or_else(|| {
            let mut name = self.output.out.clone().into_os_string();
            name.push(".teacher");
            name.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: DistillArgs,
    }

    fn arguments(rest: &str) -> DistillArgs {
        let line = format!("distill --data a --valid b --out folder/student {rest}");
        CommandLine::try_parse_from(line.split_whitespace()).unwrap().arguments
    }

    #[test]
    fn what_is_not_said_follows_from_the_rest() {
        let given = arguments("");
        assert!(given.check().is_ok());
        assert_eq!((given.form(), given.top_n()), (TargetForm::TopK(32), Some(32)));
        assert_eq!(given.teacher(), Path::new("folder/student.teacher"));
        assert_eq!(given.test(), Path::new("b"));
        let dense = arguments("--dense --teacher t --test c");
        assert_eq!((dense.form(), dense.top_n()), (TargetForm::Dense, None));
        assert_eq!((dense.teacher(), dense.test()), (PathBuf::from("t"), Path::new("c")));
    }

    #[test]
    fn ranges_are_checked_before_anything_is_asked() {
        for (flags, said) in [
            ("--top-k 0", "at least 1"),
            ("--part-tokens 0", "at least 1"),
            ("--hard-weight 1.5", "--hard-weight is 1.5; allowed: 0 to 1"),
            ("--hard-weight NaN", "--hard-weight is NaN; allowed: 0 to 1"),
            ("--temperature 0", "--temperature is 0; allowed: 0.1 to 20"),
        ] {
            assert!(arguments(flags).check().unwrap_err().to_string().contains(said), "{flags}");
        }
    }
}
