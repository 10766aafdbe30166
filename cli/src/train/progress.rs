//! How a training run is shown: a bar with speed, time left and validation perplexity on a terminal, and one line
//! for each epoch everywhere. Knows nothing about how training works.

use anyhow::Result;
use chorus_model::train::{Event, MetricsLine};
use indicatif::{ProgressBar, ProgressState, ProgressStyle};

const TEMPLATE: &str = "epoch {prefix} {bar:30} {percent:>3}%  {speed}  {eta} left  {msg}";

/// The view of one run.
pub(super) struct ProgressView {
    epochs: usize,
    /// Hidden where stderr is no terminal.
    bar: ProgressBar,
}

impl ProgressView {
    pub(super) fn new(epochs: usize) -> Result<Self> {
        let style = ProgressStyle::with_template(TEMPLATE)?.with_key("speed", speed).progress_chars("=> ");
        let bar = ProgressBar::new(0).with_style(style).with_prefix(format!("1/{epochs}"));
        Ok(Self { epochs, bar })
    }

    /// Shows what the trainer tells.
    pub(super) fn show(&self, event: &Event) {
        match event {
            Event::Started { parameters, tokens, done } => {
                self.line(&format!("{parameters} parameters, at most {tokens} tokens, {done} of them done"));
                self.bar.set_length(*tokens);
                // The speed and the time left are about what this process does.
                self.bar.set_position(*done);
                self.bar.reset_elapsed();
                self.bar.reset_eta();
            }
            Event::Step { tokens, epoch } => {
                self.bar.set_prefix(format!("{epoch}/{}", self.epochs));
                self.bar.set_position(*tokens);
            }
            Event::Validation { line, improved } => {
                let perplexity = line.valid_perplexity.unwrap_or(f64::NAN);
                self.bar.set_message(format!("valid. perplexity {perplexity:.2}"));
                self.line(&self.epoch_line(line, *improved));
            }
        }
    }

    /// A line above the bar, or on stderr where there is none.
    pub(super) fn line(&self, text: &str) {
        if self.bar.is_hidden() {
            anstream::eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
    }

    /// Takes the bar away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn epoch_line(&self, line: &MetricsLine, improved: bool) -> String {
        format!(
            "epoch {:>2}/{}  training {:.4} nats  validation {:.4} nats, perplexity {:.3}{}  rate {:.2e}  {:.0} tokens/s",
            line.epoch,
            self.epochs,
            line.train_nats,
            line.valid_nats.unwrap_or(f64::NAN),
            line.valid_perplexity.unwrap_or(f64::NAN),
            if improved { " (best)" } else { "" },
            line.learning_rate,
            line.tokens_per_second,
        )
    }
}

fn speed(state: &ProgressState, text: &mut dyn std::fmt::Write) {
    // The bar has no room for an error, and a formatter that writes into a string has none.
    let _ = write!(text, "{:.0} tokens/s", state.per_sec());
}
