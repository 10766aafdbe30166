//! Namespaces of the kernel that a test makes for itself: a network with links that it can take down, mounts that nobody else
//! sees. Where they are not permitted, or the tools for them are missing, a test says so and is skipped.

use std::{
    env,
    path::Path,
    process::{Command, Stdio},
};

use crate::{models, process, process::Chorus};

/// Set in the process that has its namespaces, to the name of its test.
const INSIDE: &str = "CHORUS_TEST_INSIDE";

/// Runs the scenario of the test of this name in network and mount namespaces of its own, in which this process is root: its
/// binary is run again there. `tools` are the programs that the scenario needs.
///
/// # Panics
/// The scenario fails.
pub fn run(test: &str, tools: &[&str], scenario: impl FnOnce()) {
    if env::var(INSIDE).is_ok_and(|inside| inside == test) {
        return scenario();
    }
    let unshare = match permitted(tools) {
        Ok(unshare) => unshare,
        Err(reason) => {
            crate::skipped(test, &reason);
            return;
        }
    };
    let status = Command::new("unshare")
        .args(unshare)
        .arg(env::current_exe().expect("the test's own path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, test)
        .status()
        .expect("unshare ran before");
    assert!(status.success(), "{test} failed in its namespaces ({status})");
}

/// How `unshare` is asked for namespaces, or why there are none.
fn permitted(tools: &[&str]) -> Result<&'static [&'static str], String> {
    for tool in tools {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        found.map_err(|error| format!("`{tool}` can't be run: {error}"))?;
    }
    let mut reason = String::new();
    // As whoever is root already, and else as root of a user namespace.
    for arguments in [&["--net", "--mount"][..], &["--user", "--map-root-user", "--net", "--mount"]] {
        // Also a mount, which some containers refuse even where there are namespaces.
        let mount = ["mount", "-t", "tmpfs", "none", "/mnt"];
        match Command::new("unshare").args(arguments).args(mount).output() {
            Ok(output) if output.status.success() => return Ok(arguments),
            Ok(output) => {
                reason = format!("not permitted here: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Err(error) => reason = format!("`unshare` can't be run: {error}"),
        }
    }
    Err(reason)
}

/// Runs a command to its end.
///
/// # Panics
/// It fails.
pub fn command(words: &str) {
    let mut parts = words.split_whitespace();
    let program = parts.next().expect("a program");
    let output = Command::new(program).args(parts).output();
    let output = output.unwrap_or_else(|error| panic!("`{words}`: {error}"));
    assert!(output.status.success(), "`{words}`: {}", String::from_utf8_lossy(&output.stderr));
}

/// The link to a worker in a network namespace of its own.
pub struct Link {
    worker: i32,
}

/// Which end of a link.
#[derive(Debug, Clone, Copy)]
pub enum End {
    Near,
    Far,
}

/// The names of its two ends, each where it is.
const FAR: &str = "far";
const NEAR: &str = "near";

impl Link {
    /// Starts a worker of a demo member behind a link, where it listens at 10.77.0.2. Loopback has to be up here.
    pub fn to_worker(member: &str) -> (Self, Chorus) {
        let script = format!(
            "echo waiting && read -r go && ip address add 10.77.0.2/24 dev {FAR} && ip link set {FAR} up && \
             exec \"$0\" \"$@\""
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "sh", "-c", &script]).arg(process::binary());
        unshare.args(["worker", "--listen", "10.77.0.2:0", "--model"]).arg(models::demo(member));
        let mut worker = Chorus::start_command(unshare, Stdio::piped());
        worker.read_until("sign that it has its namespace", |line| (line == "waiting").then_some(()));
        let pid = worker.pid().as_raw();
        command(&format!("ip link add {NEAR} type veth peer name {FAR} netns {pid}"));
        command(&format!("ip address add 10.77.0.1/24 dev {NEAR}"));
        command(&format!("ip link set {NEAR} up"));
        worker.tell("go");
        (Self { worker: pid }, worker)
    }

    /// Takes it down at one end, or up again.
    pub fn set(&self, end: End, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        match end {
            End::Near => command(&format!("ip link set {NEAR} {state}")),
            End::Far => command(&format!("nsenter --target {} --net ip link set {FAR} {state}", self.worker)),
        }
    }
}

/// A disk of so many bytes at a directory.
pub fn small_disk(directory: &Path, bytes: u64) {
    command(&format!("mount -t tmpfs -o size={bytes} none {}", directory.display()));
}
