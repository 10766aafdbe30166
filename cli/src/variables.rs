//! Which flags can be given as variables of the environment, beside those of a coordinator's configuration: every flag of `chorus
//! worker`.
//!
//! Knows nothing about what the flags mean. Flags that several commands have name their variables where they are defined.

use clap::{Arg, Command};

/// The command line with these variables. `--max-sessions` of a worker is `CHORUS_WORKER_MAX_SESSIONS`.
pub(crate) fn with_variables(command: Command) -> Command {
    command.mut_subcommand("worker", |worker| {
        let named = |arg: Arg| match arg.get_long() {
            Some(long) if arg.get_env().is_none() && !arg.is_hide_set() => {
                let name = format!("CHORUS_WORKER_{}", long.replace('-', "_").to_uppercase());
                arg.env(name)
            }
            _ => arg,
        };
        worker.mut_args(named)
    })
}
