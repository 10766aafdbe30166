//! One `chorus` process: started with port 0, read until it says where it listens, ended with real signals.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a process may take to say that it listens, or to end: far more than it needs, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The path of the binary under test. Cargo builds it before this package's integration tests.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    let profile = test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps/<test>");
    profile.join(format!("chorus-under-test{}", std::env::consts::EXE_SUFFIX))
}

/// What a process left behind.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A running `chorus`, killed when dropped.
pub struct Chorus {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: Option<thread::JoinHandle<String>>,
    printed: String,
}

impl Chorus {
    /// Starts `chorus ARGS...` with nothing on its standard input.
    pub fn start<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Self {
        Self::start_reading(args, Stdio::null())
    }

    fn start_reading<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I, stdin: Stdio) -> Self {
        let mut command = Command::new(binary());
        command.args(args);
        Self::start_command(command, stdin)
    }

    /// Starts a command that becomes `chorus ARGS...` in the same process.
    pub fn start_command(mut command: Command, stdin: Stdio) -> Self {
        let mut child = command
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into()))
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command starts");
        let stdout = lines(child.stdout.take().expect("stdout is piped"));
        let mut pipe = child.stderr.take().expect("stderr is piped");
        let stderr = thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).ok();
            text
        });
        Self { child, stdout, stderr: Some(stderr), printed: String::new() }
    }

    /// Runs `chorus ARGS...` to its end.
    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I) -> Ended {
        Self::start(args).wait()
    }

    /// Runs `chorus ARGS...` to its end with a text on its standard input, which must fit into a pipe.
    pub fn run_reading<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(args: I, text: &str) -> Ended {
        let mut chorus = Self::start_reading(args, Stdio::piped());
        let mut stdin = chorus.child.stdin.take().expect("stdin is piped");
        // A command that refuses its arguments does not read.
        stdin.write_all(text.as_bytes()).ok();
        drop(stdin);
        chorus.wait()
    }

    /// Writes a line to its standard input.
    pub fn tell(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{line}").expect("it reads");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().expect("a pid"))
    }

    /// The next line of standard output for which `pick` has an answer.
    ///
    /// # Panics
    /// The process ended or printed no such line in time; what it printed is in the message.
    pub fn read_until<T>(&mut self, what: &str, pick: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(line) => {
                    self.printed.push_str(&line);
                    self.printed.push('\n');
                    if let Some(found) = pick(&line) {
                        return found;
                    }
                }
                Err(_) => {
                    self.signal(Signal::SIGKILL);
                    let stderr = self.stderr.take().map(|thread| thread.join().unwrap_or_default());
                    panic!("no {what}; stdout: {}; stderr: {}", self.printed, stderr.unwrap_or_default());
                }
            }
        }
    }

    /// Waits for the line in which a server says where it listens.
    pub fn listening(&mut self) -> SocketAddr {
        self.read_until("line that says where it listens", |line| {
            line.strip_prefix("listening on ").and_then(|address| address.trim().parse().ok())
        })
    }

    pub fn signal(&self, signal: Signal) {
        // It may have ended by itself: then there is nothing to signal.
        kill(self.pid(), signal).ok();
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the process can be waited for").is_none()
    }

    /// Waits for the end by itself or by an earlier signal.
    ///
    /// # Panics
    /// It does not end in time.
    pub fn wait(mut self) -> Ended {
        let deadline = Instant::now() + PATIENCE * 3;
        // Reading to the end of stdout comes first: a full pipe would keep the process from ending.
        loop {
            match self.stdout.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.printed.push_str(&line);
                    self.printed.push('\n');
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.signal(Signal::SIGKILL);
                    panic!("it did not end; stdout: {}", self.printed);
                }
            }
        }
        let status = self.child.wait().expect("the process can be waited for");
        let stderr = self.stderr.take().map(|thread| thread.join().unwrap_or_default()).unwrap_or_default();
        Ended { status, stdout: std::mem::take(&mut self.printed), stderr }
    }
}

impl Drop for Chorus {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        // Of a test that fails: what the processes have to say about it.
        if thread::panicking() {
            let stderr = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
            if !stderr.is_empty() {
                eprintln!("process {} said:\n{stderr}", self.child.id());
            }
        }
    }
}

fn lines(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The processes that a process started and that still run, in the order in which they were started.
pub fn children(pid: i32) -> Vec<i32> {
    let mut children: Vec<i32> = Vec::new();
    // Each of the parent's threads has its own.
    if let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) {
        for task in tasks.flatten() {
            let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            children.extend(text.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    children.sort_unstable();
    children.dedup();
    children.retain(|pid| is_alive(*pid));
    children
}

/// Whether a process runs: neither gone nor only waiting to be reaped.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next()).is_some_and(|state| state != "Z")
}

/// kill -9.
pub fn kill_process(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
}
