//! A run while it goes on: a bar with speed on a terminal, nothing elsewhere. Knows nothing about what is measured.

use std::{sync::Arc, time::Duration};

use chorus_load::{Live, Plan};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{Instant, interval};

const TEMPLATE: &str = "{prefix} {bar:24} {msg}";
const REFRESH: Duration = Duration::from_millis(250);

/// Shows what `live` says until it is dropped, which is when the run is over.
pub(super) async fn show(label: &str, plan: &Plan, live: Arc<Live>) {
    let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let total = plan.window.until;
    let length = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
    // Hidden where stderr is no terminal.
    let bar = ProgressBar::new(length).with_style(style.progress_chars("=> ")).with_prefix(label.to_owned());
    let _cleared = Cleared(bar.clone());
    let start = Instant::now();
    let mut ticks = interval(REFRESH);
    let mut before = (start, 0);
    loop {
        let now = ticks.tick().await;
        let (elapsed, tokens) = (start.elapsed(), live.token_count());
        let seconds = (now - before.0).as_secs_f64().max(1e-3);
        let speed = (tokens - before.1) as f64 / seconds;
        before = (now, tokens);
        let phase = if elapsed < plan.window.from {
            "warm-up"
        } else if elapsed < total {
            "measuring"
        } else {
            "draining"
        };
        bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(length).min(length));
        bar.set_message(format!(
            "{phase}  {speed:.0} tokens/s  {} answers  {} errors",
            live.answered_count(),
            live.failed_count()
        ));
    }
}

/// Takes the bar away, however the waiting ends.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
