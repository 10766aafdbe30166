//! One child process: started, listened to, stopped. Knows nothing about when or why it is started again.

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use anstyle::{AnsiColor, Style};
use anyhow::Context as _;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    failure::{note, warn},
    serve::{LISTENING, PAGE_LISTENING, SECURE},
};

/// How long a child may drain before it is killed.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

const DIM: Style = AnsiColor::BrightBlack.on_default();

/// What to start: this program with a command of its own, without the address.
#[derive(Debug, Clone)]
pub(crate) struct ProcessSpec {
    /// The name before its lines.
    pub(crate) name: String,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
}

/// A child that runs.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    /// Held open while the child shall run: it drains when this ends, so it ends with us even if we are killed.
    stdin: Option<ChildStdin>,
    stdout: Lines<BufReader<ChildStdout>>,
    /// Where it serves a page, once it has said so.
    page: Option<PageAddress>,
    /// Ends with the child's stderr; the last line that said "error: ...".
    last_error: Option<JoinHandle<Option<String>>>,
}

/// Where a page is served, and how. Shown as what a browser takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageAddress {
    pub(super) at: SocketAddr,
    pub(super) is_secure: bool,
}

impl PageAddress {
    /// As the coordinator says it.
    pub(super) fn of(said: &str) -> Option<Self> {
        let (at, is_secure) = match said.strip_prefix(SECURE) {
            Some(at) => (at, true),
            None => (said, false),
        };
        Some(Self { at: at.parse().ok()?, is_secure })
    }
}

impl fmt::Display for PageAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", if self.is_secure { SECURE } else { "http://" }, self.at)
    }
}

impl Process {
    /// Starts a child that shall listen at an address (port 0: of its choice).
    ///
    /// # Errors
    /// The program can't be started.
    pub(crate) fn start(spec: &ProcessSpec, listen: SocketAddr) -> anyhow::Result<Self> {
        let mut child = command(spec, listen)
            .spawn()
            .with_context(|| format!("can't start {}", spec.program.display()))?;
        let (stdout, stderr) =
            child.stdout.take().zip(child.stderr.take()).context("a started process has no output")?;
        Ok(Self {
            name: spec.name.clone(),
            stdin: child.stdin.take(),
            stdout: BufReader::new(stdout).lines(),
            page: None,
            last_error: Some(tokio::spawn(pass_on_lines(spec.name.clone(), stderr))),
            child,
        })
    }

    /// Its process id; none once it has ended and was waited for.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until the child says where it listens; nothing where it ended before it did.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The child's output can't be read.
    pub(crate) async fn listening(&mut self) -> io::Result<Option<SocketAddr>> {
        while let Some(line) = self.stdout.next_line().await? {
            if let Some(page) = line.strip_prefix(PAGE_LISTENING) {
                self.page = PageAddress::of(page.trim()).or(self.page);
            }
            if let Some(address) = line.strip_prefix(LISTENING).and_then(|said| said.trim().parse().ok()) {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    /// Where it serves a page, if it has said so before where it listens.
    pub(super) fn page(&self) -> Option<PageAddress> {
        self.page
    }

    /// Waits until the child has ended; why, in its own words where it had some.
    ///
    /// Cancel safe.
    ///
    /// # Errors
    /// The child can't be waited for.
    pub(crate) async fn ended(&mut self) -> io::Result<String> {
        let status = self.child.wait().await?;
        let said = match &mut self.last_error {
            Some(lines) => lines.await.ok().flatten(),
            None => None,
        };
        self.last_error = None;
        Ok(said.unwrap_or_else(|| format!("it ended with {status}")))
    }

    /// Lets the child drain and waits until it has ended; kills it where that is wanted or takes too long.
    ///
    /// # Errors
    /// The child can't be waited for.
    pub(crate) async fn stop(mut self, kill: &CancellationToken) -> io::Result<()> {
        drop(self.stdin.take());
        tokio::select! {
            ended = self.child.wait() => return ended.map(drop),
            () = kill.cancelled() => {}
            () = tokio::time::sleep(DRAIN_LIMIT) => {
                warn(&format!("{} did not end in {} s and is killed", self.name, DRAIN_LIMIT.as_secs()));
            }
        }
        self.child.kill().await
    }
}

fn command(spec: &ProcessSpec, listen: SocketAddr) -> Command {
    let mut command = Command::new(&spec.program);
    // What is meant for a process that somebody runs by itself is meant for none of these.
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_of_one(name)) {
        command.env_remove(name);
    }
    command
        .args(&spec.arguments)
        .arg(format!("--listen={listen}"))
        .arg("--exit-with-parent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // Ctrl-C in a terminal reaches everyone in the foreground group; the order of the drain is ours to keep.
    #[cfg(unix)]
    command.process_group(0);
    command
}

/// Whether a variable configures one worker or coordinator.
fn is_of_one(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("CHORUS_") && name != "CHORUS_LOG_FORMAT"
}

/// Shows a child's log lines behind its name. Its errors are kept for whoever waits for its end.
async fn pass_on_lines(name: String, stderr: ChildStderr) -> Option<String> {
    let mut last_error = None;
    let mut lines = BufReader::new(stderr).split(b'\n');
    // A child must never wait for its log to be read, so bytes that are no text are shown as well as they can be.
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        match line.strip_prefix("error: ") {
            Some(error) => last_error = Some(error.trim_end().to_owned()),
            None => note(&format!("{DIM}{name} |{DIM:#} {line}")),
        }
    }
    last_error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_for_one_process_is_for_none_of_these() {
        let is_of_one = |name: &str| is_of_one(OsStr::new(name));
        assert!(is_of_one("CHORUS_LISTEN") && is_of_one("CHORUS_WORKER_MODEL") && is_of_one("CHORUS_CONFIG"));
        assert!(!is_of_one("CHORUS_LOG_FORMAT") && !is_of_one("RUST_LOG") && !is_of_one("OTEL_SERVICE_NAME"));
    }
}
