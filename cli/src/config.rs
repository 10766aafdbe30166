//! `chorus config`: a coordinator's configuration looked at without serving it. Knows nothing about how it is used.

use chorus_coordinator::config::{Config, Variables};

use crate::client::{print, table};
use crate::serve::{ConfigurationArgs, config, warn_of_misspelt};

const EXAMPLES: &str = "\
Examples:
  chorus config check --config ensemble.toml
  CHORUS_FUSION_RULE=log_linear chorus config check --config ensemble.toml
  chorus config show --config ensemble.toml --max-sessions 64
  chorus config variables

What a coordinator would do: flags stand over CHORUS_* variables, and these over
the file. Every key of the file has a variable, CHORUS_ and the key in capitals
with _ for the dots: limits.max_sessions is CHORUS_LIMITS_MAX_SESSIONS. Members
are written as for --member, with spaces between them:
  CHORUS_MEMBERS=\"alto@2=http://10.0.0.1:50061 bass=http://10.0.0.2:50061\"
Paths in variables and flags are from here, those in the file from where it is.
An empty variable is as good as none.";

const SUBCOMMAND_EXAMPLES: &str = "\
See `chorus config --help` for examples, and for what stands over what.";

/// What is no key of the file, but of the process that reads it: the variable, and the flag that stands over it.
const OF_PROCESS: [(&str, &str); 4] = [
    ("CHORUS_CONFIG", "--config"),
    ("CHORUS_THREADS", "--threads"),
    ("CHORUS_LOG_FORMAT", "--log-format"),
    ("RUST_LOG", "--log"),
];

/// Check a coordinator's configuration, and show what it comes to
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check file, variables, flags, and the certificates, tokens and weights that they name; nobody is connected to
    #[command(after_help = SUBCOMMAND_EXAMPLES)]
    Check(Box<ConfigurationArgs>),
    /// Print the configuration that results, every key of it, as a file
    #[command(after_help = SUBCOMMAND_EXAMPLES)]
    Show(Box<ConfigurationArgs>),
    /// List the variables, each with the key that it stands over, or the flag that stands over it
    #[command(after_help = SUBCOMMAND_EXAMPLES)]
    Variables,
}

/// Runs the command.
///
/// # Errors
/// The configuration can't be used, or stdout can't be written.
pub(crate) fn run(arguments: ConfigArgs) -> anyhow::Result<()> {
    match arguments.command {
        Command::Check(arguments) => {
            let (text, variables) = read(*arguments, |config| Ok(summary(config)))?;
            print(&text)?;
            let names: Vec<&str> = variables.names().collect();
            if names.is_empty() { Ok(()) } else { print(&format!("variables   {}\n", names.join(", "))) }
        }
        Command::Show(arguments) => print(&read(*arguments, |config| Ok(toml::to_string(config)?))?.0),
        Command::Variables => {
            let of_process = OF_PROCESS.map(|(name, flag)| (name.to_owned(), flag.to_owned()));
            let rows = Variables::known().into_iter().chain(of_process).map(|(name, key)| vec![name, key]);
            print(&table(&["variable", "key"], &["variable", "key"], rows))
        }
    }
}

/// What is made of the configuration, and the variables in it over which no flag stands.
fn read(
    arguments: ConfigurationArgs,
    make: impl FnOnce(&Config) -> anyhow::Result<String>,
) -> anyhow::Result<(String, Variables)> {
    let (file, flags) = arguments.split()?;
    let variables = flags.variables_in_effect();
    let config = config(file.as_deref(), flags)?;
    config.check_secrets()?;
    warn_of_misspelt();
    Ok((make(&config)?, variables))
}

fn summary(config: &Config) -> String {
    let Config { members, fusion, quorum, .. } = config;
    let names = config.member_names().join(", ");
    let of_what =
        |what: Option<std::net::SocketAddr>| what.map_or_else(|| "nowhere".to_owned(), |at| at.to_string());
    let yes = |there: bool, what: &str| if there { what.to_owned() } else { "no".to_owned() };
    let lines = [
        ("members", format!("{}: {names}", members.len())),
        ("rule", format!("{} (threshold {})", fusion.rule, fusion.threshold)),
        ("quorum", format!("at least {} of them, with {} of the weight", quorum.members, quorum.weight)),
        ("weights", if config.learned.is_some() { "learned" } else { "as configured" }.to_owned()),
        ("clients", config.listen.to_string()),
        ("admin", of_what(config.admin)),
        ("page", of_what(config.http)),
        ("metrics", of_what(config.metrics)),
        ("tls", yes(config.tls.is_some(), "the certificate and its key can be used")),
        ("tokens", yes(config.auth.is_some(), "the file can be used")),
    ];
    let lines = lines.map(|(name, value)| format!("{name:<11} {value}\n"));
    format!("the configuration can be used\n{}", lines.concat())
}
