//! `chorus members`: the members of a running coordinator, looked at and changed without a restart.

mod edit;

use anyhow::anyhow;
use chorus_coordinator::config::MemberConfig;
use chorus_net::Wire;
use chorus_proto::v1::{
    ConfigurationReply, ConfigurationRequest, Quorum, ReloadRequest, SetMembersRequest,
    admin_client::AdminClient,
};
use tonic::{Code, Status};

use super::{
    address::Address,
    connect::{channel, sentence_of_status},
    format::{print, print_json, rule_name, table},
    fusion::parse_weight,
    reply,
    security::SecurityArgs,
};
use crate::{failure::note, values::number};
use edit::Edit;

const EXAMPLES: &str = "\
Examples:
  chorus members list
  chorus members weight alto=2 bass=0.5
  chorus members add tuba@0.5=http://10.0.0.7:50061
  chorus members move tuba=http://10.0.0.8:50061,http://10.0.0.9:50061
  chorus members remove tuba
  chorus members reload

A change is checked as a whole before it takes effect: values, and that every
worker that it adds is up and speaks the ensemble's vocabulary. Otherwise
nothing changes. Requests in progress keep the members and weights with which
they began. The coordinator has to be started with --admin.

With --json one object with the keys
  revision   1 at start, and one more with every change
  rule, threshold
  quorum     {members, weight}
  members    [{name, weight, addresses}]";

const CHANGE_EXAMPLES: &str = "\
See `chorus members --help` for examples, and for the keys of --json.

The change lasts until the coordinator reads its file again or starts anew: what
shall last longer has to be written into the file.";

const READ_EXAMPLES: &str = "\
See `chorus members --help` for examples, and for the keys of --json.";

/// Show and change the members of a running coordinator
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MembersArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show members, weights and addresses, as configured
    #[command(after_help = READ_EXAMPLES)]
    List {
        #[command(flatten)]
        admin: AdminArgs,
    },
    /// Add members at the end of the list
    #[command(after_help = CHANGE_EXAMPLES)]
    Add {
        /// The members
        #[arg(value_name = "NAME[@WEIGHT]=URL[,URL]", required = true)]
        members: Vec<MemberConfig>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Remove members; requests that have begun keep them
    #[command(after_help = CHANGE_EXAMPLES)]
    Remove {
        /// The members
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Say where the replicas of members are; those that stay keep their sessions
    #[command(after_help = CHANGE_EXAMPLES)]
    Move {
        /// The members, each with all of its addresses
        #[arg(value_name = "NAME=URL[,URL]", required = true)]
        members: Vec<MemberConfig>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Change weights; those that are not named stay
    #[command(after_help = CHANGE_EXAMPLES)]
    Weight {
        /// The weights
        #[arg(value_name = "NAME=W", required = true, value_parser = parse_weight)]
        weights: Vec<(String, f64)>,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Have the configuration file read again, as SIGHUP does
    #[command(after_help = READ_EXAMPLES)]
    Reload {
        /// Change it even if workers that are new are not up
        #[arg(long)]
        allow_down: bool,
        #[command(flatten)]
        admin: AdminArgs,
    },
}

#[derive(Debug, clap::Args)]
struct AdminArgs {
    /// Where the coordinator serves its admin service
    #[arg(
        long = "admin",
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:50052",
        env = "CHORUS_CLIENT_ADMIN"
    )]
    address: Address,
    #[command(flatten)]
    security: SecurityArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    /// Change it even if workers that are new are not up
    #[arg(long)]
    allow_down: bool,
    /// The least number of members with which it answers from then on (default: as it is)
    #[arg(long, value_name = "N")]
    quorum_members: Option<u32>,
    /// The least share of the total weight with which it answers from then on (default: as it is)
    #[arg(long, value_name = "SHARE", value_parser = number, allow_negative_numbers = true)]
    quorum_weight: Option<f64>,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs the command.
///
/// # Errors
/// The coordinator can't be reached or refuses, a name is none, or stdout can't be written.
pub(crate) async fn run(arguments: MembersArgs) -> anyhow::Result<()> {
    match arguments.command {
        Command::List { admin } => {
            let reply =
                ask(&admin, async |client| client.configuration(ConfigurationRequest {}).await).await?;
            show(&reply, &admin)
        }
        Command::Reload { allow_down, admin } => {
            let reply = ask(&admin, async |client| client.reload(ReloadRequest { allow_down }).await).await?;
            show(&reply, &admin)
        }
        Command::Add { members, change } => edit(Edit::Add(members), change).await,
        Command::Remove { names, change } => edit(Edit::Remove(names), change).await,
        Command::Move { members, change } => edit(Edit::Move(members), change).await,
        Command::Weight { weights, change } => edit(Edit::Weigh(weights), change).await,
    }
}

/// Reads the list, changes it, and puts it back if nobody else has in between.
async fn edit(edit: Edit, arguments: ChangeArgs) -> anyhow::Result<()> {
    let admin = &arguments.admin;
    let before = ask(admin, async |client| client.configuration(ConfigurationRequest {}).await).await?;
    let (revision, quorum) = (before.revision, before.quorum.unwrap_or_default());
    let request = SetMembersRequest {
        members: edit.apply(before.members)?,
        expected_revision: Some(revision),
        quorum: Some(Quorum {
            members: arguments.quorum_members.unwrap_or(quorum.members),
            weight: arguments.quorum_weight.unwrap_or(quorum.weight),
        }),
        allow_down: arguments.allow_down,
    };
    let after = ask(admin, async |client| client.set_members(request).await).await?;
    show(&after, admin)?;
    note(
        "this lasts until the coordinator reads its file again or starts anew: write it into the file if it shall stay",
    );
    Ok(())
}

async fn ask<T>(
    admin: &AdminArgs,
    call: impl AsyncFnOnce(&mut AdminClient<Wire>) -> Result<tonic::Response<T>, Status>,
) -> anyhow::Result<T> {
    let address = &admin.address.secured_by(&admin.security)?;
    let channel = channel(address).await.map_err(|reason| {
        anyhow!("no admin service answers at {address}: {reason}; a coordinator serves it with --admin")
    })?;
    let reply = call(&mut AdminClient::new(channel)).await;
    reply.map(tonic::Response::into_inner).map_err(|status| match status.code() {
        Code::Unimplemented => {
            anyhow!(
                "the server at {address} has no admin service; a coordinator has it at the address of --admin"
            )
        }
        _ => sentence_of_status(&status, address),
    })
}

fn show(reply: &ConfigurationReply, admin: &AdminArgs) -> anyhow::Result<()> {
    if admin.json {
        return print_json(&reply::configuration(reply));
    }
    print(&text(reply))
}

fn text(reply: &ConfigurationReply) -> String {
    let quorum = reply.quorum.unwrap_or_default();
    let rows = reply.members.iter().map(|member| {
        let weight = member.weight.unwrap_or_default().to_string();
        vec![member.name.clone(), weight, member.addresses.join(", ")]
    });
    format!(
        " revision  {}\n rule      {} (threshold {})\n quorum    at least {} of {} members, with {} of the weight\n\n{}",
        reply.revision,
        rule_name(reply.rule),
        reply.threshold,
        quorum.members,
        reply.members.len(),
        quorum.weight,
        table(&["member", "weight", "addresses"], &["addresses"], rows),
    )
}

#[cfg(test)]
mod tests {
    use chorus_proto::v1::MemberSettings;

    use super::*;

    #[test]
    fn members_are_shown_as_configured() {
        let member = MemberSettings {
            name: "alto".into(),
            weight: Some(2.5),
            addresses: vec!["http://h:1".into(), "http://h:2".into()],
        };
        let reply = ConfigurationReply { revision: 3, members: vec![member], ..Default::default() };
        let text = text(&reply);
        assert!(text.starts_with(" revision  3\n"), "{text}");
        let words: Vec<&str> = text.lines().last().unwrap().split_whitespace().collect();
        assert_eq!(words, ["alto", "2.5", "http://h:1,", "http://h:2"]);
        let json = reply::configuration(&reply);
        let addresses = ["http://h:1", "http://h:2"];
        let members = serde_json::json!([{ "name": "alto", "weight": 2.5, "addresses": addresses }]);
        assert_eq!((&json["revision"], &json["members"]), (&3.into(), &members));
    }
}
