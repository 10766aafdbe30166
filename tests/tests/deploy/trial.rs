//! Starts a command line with the real binary, on ports and models that this machine has, and ends it.
//! Knows nothing about where it comes from.

use std::{fs, net::SocketAddr, path::Path};

use chorus_net::Identity;
use chorus_net::testing::{Authority, Validity};
use chorus_tests::{Chorus, models};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::lines::Line;

/// Starts it.
///
/// # Panics
/// It is not understood, its configuration is refused, or it does not serve and drain.
pub(crate) fn start(line: &Line) {
    let folder = TempDir::new().unwrap();
    put_secrets(folder.path());
    let words = here(line, folder.path());
    let command = line.words[0].as_str();
    let on_cuda = words.iter().any(|word| word.starts_with("--device=cuda"));
    match command {
        "worker" | "coordinator" if !on_cuda => {
            let mut chorus = Chorus::start(&words);
            chorus.listening();
            chorus.signal(Signal::SIGTERM);
            let ended = chorus.wait();
            assert_eq!(ended.status.code(), Some(0), "{line:?}: {}", ended.stderr);
        }
        _ => {
            // What was understood may fail here, but not as wrong usage.
            let (code, said) = match command {
                "worker" => (1, "needs a program built with CUDA"),
                "health" | "status" => (1, "connection refused"),
                "--help" => (0, ""),
                other => panic!("{}: it is not known how to try {other}", line.origin),
            };
            let ended = Chorus::run(&words);
            assert_eq!(ended.status.code(), Some(code), "{line:?}: {}", ended.stderr);
            assert!(ended.stderr.contains(said), "{line:?}: {}", ended.stderr);
        }
    }
}

/// Where pods find certificates and tokens.
const SECRETS: [&str; 2] = ["/tls/", "/auth/"];

/// The files of a Secret of the kind kubernetes.io/tls, as cert-manager fills it, and of one with tokens.
fn put_secrets(folder: &Path) {
    for secret in SECRETS {
        fs::create_dir(folder.join(secret.trim_matches('/'))).unwrap();
    }
    let tokens =
        "[[tokens]]\nname = 'us'\nscopes = ['read']\nsha256 = 'HASH'\n".replace("HASH", &"0f".repeat(32));
    fs::write(folder.join("auth/tokens.toml"), tokens).unwrap();
    let folder = folder.join("tls");
    let authority = Authority::new("tests");
    let Identity { certificate, key } = authority.vouch(&["127.0.0.1"], Validity::Now);
    for (name, pem) in [("ca.crt", authority.pem()), ("tls.crt", certificate), ("tls.key", key)] {
        fs::write(folder.join(name), pem).unwrap();
    }
}

/// Every path to one of them, at the beginning of `text` or after `"` or `=`, as a path in `folder`.
fn with_secrets(text: &str, folder: &Path) -> String {
    let folder = folder.display();
    let text = if SECRETS.iter().any(|secret| text.starts_with(secret)) {
        format!("{folder}{text}")
    } else {
        text.to_owned()
    };
    let places = SECRETS.iter().flat_map(|secret| ["\"", "="].map(|before| (before, secret)));
    places.fold(text, |text, (before, secret)| {
        text.replace(&format!("{before}{secret}"), &format!("{before}{folder}{secret}"))
    })
}

/// The words with addresses, models and files that are here. What they replace has to be of the same kind.
fn here(line: &Line, folder: &Path) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut given = line.words.iter();
    while let Some(word) = given.next() {
        let option = word.split_once('=').map_or(word.as_str(), |(option, _)| option);
        if !["--listen", "--http", "--metrics", "--addr", "--wait", "--model", "--config"].contains(&option) {
            words.push(with_secrets(word, folder));
            continue;
        }
        let value = word.split_once('=').map(|(_, value)| value.to_owned());
        let value = value.or_else(|| given.next().cloned()).unwrap_or_else(|| panic!("{line:?}: {word}"));
        words.push(format!("{option}={}", value_here(option, &value, line, folder)));
    }
    words
}

fn value_here(option: &str, value: &str, line: &Line, folder: &Path) -> String {
    let (scheme, address) = value.find("://").map_or(("", value), |at| value.split_at(at + 3));
    let is_address = || assert!(address.parse::<SocketAddr>().is_ok(), "{line:?}: {option} {value}");
    match option {
        "--listen" | "--http" | "--metrics" => {
            is_address();
            "127.0.0.1:0".to_owned()
        }
        // Nobody listens there.
        "--addr" => {
            is_address();
            format!("{scheme}127.0.0.1:9")
        }
        "--wait" => {
            assert!(value.parse::<u32>().is_ok(), "{line:?}: {option} {value}");
            "0".to_owned()
        }
        "--model" => {
            let name = value.rsplit('/').next().filter(|name| models::DEMO.contains(name));
            models::demo(name.unwrap_or("alto")).display().to_string()
        }
        _ => {
            let file = folder.join("ensemble.toml");
            let config = line.config.as_deref().unwrap_or_else(|| panic!("{line:?} has no file"));
            let config = ["0.0.0.0:50051", "127.0.0.1:50051", "0.0.0.0:8080", "0.0.0.0:9464"]
                .iter()
                .fold(config.to_owned(), |config, address| config.replace(address, "127.0.0.1:0"));
            fs::write(&file, with_secrets(&config, folder)).unwrap();
            file.display().to_string()
        }
    }
}
