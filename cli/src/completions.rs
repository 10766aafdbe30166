//! `chorus completions`: what a shell completes of this command line. Knows nothing about the commands.

use clap_complete::Shell;

use crate::client::print;

const EXAMPLES: &str = "\
Examples:
  chorus completions bash > ~/.local/share/bash-completion/completions/chorus
  chorus completions zsh > \"${fpath[1]}/_chorus\"
  chorus completions fish > ~/.config/fish/completions/chorus.fish";

/// Print the completions of this program for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Which one
    shell: Shell,
}

/// Runs the command.
///
/// # Errors
/// Stdout can't be written.
pub(crate) fn run(arguments: &CompletionsArgs, command: &mut clap::Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "chorus", &mut script);
    print(&String::from_utf8(script)?)
}
