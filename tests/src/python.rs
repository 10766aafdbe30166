//! Python with the ecosystem's own clients: a virtual environment below target/, installed once and kept.
//!
//! Knows nothing about what is run in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::LazyLock,
};

/// The virtual environment, or why there is none on this machine.
static PYTHON: LazyLock<Result<Python, String>> = LazyLock::new(Python::install);

/// A virtual environment with everything that `tests/python/requirements.txt` names.
pub struct Python {
    folder: PathBuf,
}

/// The folder with the scripts.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python")
}

impl Python {
    /// The environment. Where there can't be one it says that the test is skipped, and why.
    pub fn or_skip(test: &str) -> Option<&'static Self> {
        match &*PYTHON {
            Ok(python) => Some(python),
            Err(why) => {
                crate::skipped(test, why);
                None
            }
        }
    }

    fn install() -> Result<Self, String> {
        // Below target/, where nobody looks for sources.
        let target = crate::binary().parent().and_then(Path::parent).expect("target/<profile>").to_owned();
        let python = Self { folder: target.join("python") };
        let wanted =
            fs::read_to_string(scripts().join("requirements.txt")).expect("the requirements are there");
        let mark = python.folder.join("installed.txt");
        if fs::read_to_string(&mark).is_ok_and(|installed| installed == wanted) {
            return Ok(python);
        }
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&python.folder).output();
        match made {
            Ok(made) if made.status.success() => {}
            Ok(made) => return Err(format!("python3 makes no virtual environment: {}", last_line(&made))),
            Err(error) => return Err(format!("there is no python3: {error}")),
        }
        let requirements = scripts().join("requirements.txt");
        let installed = python.pip(["install".as_ref(), "-r".as_ref(), requirements.as_os_str()]);
        if installed.status.success() {
            fs::write(&mark, wanted).expect("the mark is written");
            return Ok(python);
        }
        // Where PyPI is there, a requirement that can't be installed is a mistake of the requirements.
        let folder = python.folder.join("reachable");
        let any = python.pip([
            "download",
            "--no-deps",
            "--no-cache-dir",
            "-d",
            folder.to_str().expect("UTF-8"),
            "pip",
        ]);
        assert!(!any.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        Err(format!("PyPI can't be reached: {}", last_line(&any)))
    }

    fn pip<S: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.program("python")
            .args(["-m", "pip", "--disable-pip-version-check"])
            .args(arguments)
            .output()
            .expect("pip runs")
    }

    /// Whether there is a program: on the path, or in a package that is not for every machine and is installed where there is one
    /// for this.
    pub fn has(&self, program: &str, requirement: &str) -> bool {
        let find = || {
            let mut find = self.shell(&format!("command -v {program}"), &self.folder);
            find.output().is_ok_and(|found| found.status.success())
        };
        find() || (self.pip(["install", requirement]).status.success() && find())
    }

    /// A program of the environment.
    pub fn program(&self, name: &str) -> Command {
        Command::new(self.folder.join("bin").join(name))
    }

    /// A command line in `folder`, in which programs are the environment's, as after its `activate`.
    pub fn shell(&self, line: &str, folder: &Path) -> Command {
        let mut command = Command::new("sh");
        let path = std::env::var("PATH").unwrap_or_default();
        let bin = self.folder.join("bin");
        command.args(["-e", "-c", line]).current_dir(folder).env("PATH", format!("{}:{path}", bin.display()));
        command
    }
}

/// Runs a command and has its standard output.
///
/// # Panics
/// It failed.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} ended with {}:\n{out}\n{error}", output.status);
    out.into_owned()
}

fn last_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it says nothing").to_owned()
}
