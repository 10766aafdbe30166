//! [`Settings`]: the program's version and the configuration in force, as metrics. Knows nothing about what is configured.

use std::fmt;

use metrics::Unit;

const BUILD: &str = "chorus_build_info";
const REVISION: &str = "chorus_config_revision";
const SUCCESSFUL: &str = "chorus_config_last_reload_successful";
const CHANGES: &str = "chorus_config_changes_total";
const SERVING: &str = "chorus_serving";
const TO_SPARE: &str = "chorus_members_to_spare";

/// The metrics, which go to whatever recorder is installed when they are made.
pub(crate) struct Settings {
    revision: metrics::Gauge,
    successful: metrics::Gauge,
    applied: metrics::Counter,
    refused: metrics::Counter,
    serving: metrics::Gauge,
    to_spare: metrics::Gauge,
}

impl Settings {
    /// Of a process that begins with its first configuration.
    pub(crate) fn new() -> Self {
        metrics::describe_gauge!(BUILD, Unit::Count, "1, with the version of the program");
        metrics::describe_gauge!(REVISION, Unit::Count, "Configurations of this process so far");
        metrics::describe_gauge!(
            SUCCESSFUL,
            "1 where the configuration was taken as its files had it when they were read last, else 0"
        );
        metrics::describe_counter!(
            CHANGES,
            Unit::Count,
            "Changes that were wished for, by what came of them"
        );
        metrics::describe_gauge!(
            SERVING,
            "1 while the members that are up make the quorum, or the fallback is up, else 0"
        );
        metrics::describe_gauge!(
            TO_SPARE,
            Unit::Count,
            "Members that may be lost, whichever they are, until the quorum is gone"
        );
        metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let changes = |outcome: &'static str| metrics::counter!(CHANGES, "outcome" => outcome);
        let settings = Self {
            revision: metrics::gauge!(REVISION),
            successful: metrics::gauge!(SUCCESSFUL),
            applied: changes("applied"),
            refused: changes("refused"),
            serving: metrics::gauge!(SERVING),
            to_spare: metrics::gauge!(TO_SPARE),
        };
        settings.revision.set(1.0);
        settings.successful.set(1.0);
        settings
    }

    /// A change was asked for, and carried out or not; this revision is in force now.
    pub(crate) fn changed(&self, revision: u64, is_applied: bool, is_reload: bool) {
        self.revision.set(revision as f64);
        if is_reload {
            self.successful.set(f64::from(is_applied));
        }
        let counter = if is_applied { &self.applied } else { &self.refused };
        counter.increment(1);
    }

    /// So many members may be lost.
    pub(crate) fn to_spare(&self, members: usize) {
        self.to_spare.set(members as f64);
    }

    /// Whether somebody can answer.
    pub(crate) fn serving(&self, is_serving: bool) {
        self.serving.set(f64::from(is_serving));
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Settings")
    }
}
