//! Which flags can be given as variables of the environment, beside those of a coordinator's configuration: every flag of `chorus
//! worker`.
//!
//! Knows nothing about what the flags mean. Flags that several commands have name their variables where they are defined.

use clap::{Arg, Command};

/// The command line with these variables. `--max-sessions` of a worker is `CHORUS_WORKER_MAX_SESSIONS`, and `--tls-key`
/// `CHORUS_WORKER_SERVER_TLS_KEY`, since `CHORUS_WORKER_TLS_KEY` is a coordinator's: of its `[worker_tls]`.
pub(crate) fn with_variables(command: Command) -> Command {
    command.mut_subcommand("worker", |worker| {
        let named = |arg: Arg| match arg.get_long() {
            Some(long) if arg.get_env().is_none() && !arg.is_hide_set() => {
                let server = if long.starts_with("tls-") { "SERVER_" } else { "" };
                let name = format!("CHORUS_WORKER_{server}{}", long.replace('-', "_").to_uppercase());
                arg.env(name)
            }
            _ => arg,
        };
        worker.mut_args(named)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use chorus_coordinator::config::Variables;
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_variable_is_of_two_things() {
        let command = with_variables(crate::CommandLine::command());
        let worker = command.find_subcommand("worker").unwrap();
        let of = |command: &Command| {
            let names = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str().map(str::to_owned));
            names.collect::<BTreeSet<String>>()
        };
        let of_worker = of(worker);
        assert!(
            of_worker.contains("CHORUS_WORKER_MODEL") && of_worker.contains("CHORUS_WORKER_SERVER_TLS_KEY")
        );
        assert!(of_worker.len() > 15, "{of_worker:?}");
        for command in command.get_subcommands() {
            for (name, key) in Variables::known() {
                assert!(!of(command).contains(&name), "{name} is {key} and one of {}", command.get_name());
            }
        }
    }
}
