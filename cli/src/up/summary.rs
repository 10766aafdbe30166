//! What `up` says once the ensemble serves: the addresses, and a line to try. Knows nothing about processes.

use std::{env, fmt::Write as _, net::SocketAddr};

use anstyle::{AnsiColor, Style};

use super::process::PageAddress;

const DEFAULT_ADDRESS: &str = "127.0.0.1:50051";
const BOLD: Style = Style::new().bold();
const GREEN: Style = AnsiColor::Green.on_default().bold();

/// A worker as it is shown: its name, where it listens, its model directory.
pub(super) type WorkerLine = (String, SocketAddr, String);

/// The whole message. Coloured; the stream that prints it takes the colours out where it is no terminal.
pub(super) fn summary(
    (ensemble, page): (SocketAddr, Option<PageAddress>),
    admin: Option<SocketAddr>,
    member_count: usize,
    workers: &[WorkerLine],
    program: &str,
) -> String {
    let mut text = format!("{GREEN}The ensemble serves{GREEN:#} with {}.\n\n", members(member_count));
    let width =
        workers.iter().map(|(name, ..)| name.len()).chain(["ensemble".len()]).max().unwrap_or_default();
    // Writing into a String can't fail.
    let _infallible = writeln!(text, "  {:<width$}  http://{ensemble}", "ensemble");
    if let Some(page) = page {
        let _infallible = writeln!(text, "  {:<width$}  {BOLD}{page}{BOLD:#}  for browsers", "page");
    }
    if let Some(admin) = admin {
        let _infallible = writeln!(text, "  {:<width$}  http://{admin}", "admin");
    }
    for (name, address, model) in workers {
        let _infallible = writeln!(text, "  {name:<width$}  http://{address}  {model}");
    }
    let address = match ensemble.to_string() {
        address if address == DEFAULT_ADDRESS => String::new(),
        address => format!(" --addr {address}"),
    };
    let _infallible = writeln!(
        text,
        "\nTry, in another terminal:\n  {BOLD}{program} generate \"ROMEO:\" --max-tokens 200{address}{BOLD:#}\n\nCtrl-C stops everything."
    );
    text
}

fn members(count: usize) -> String {
    if count == 1 { "1 member".to_owned() } else { format!("{count} members") }
}

/// How the user started this program, so that another command can be started in the same way.
pub(super) fn program() -> String {
    let through_cargo = env::var("CARGO_PKG_NAME").is_ok_and(|package| package == env!("CARGO_PKG_NAME"));
    let typed = env::args().next().unwrap_or_default();
    program_of(through_cargo, cfg!(debug_assertions), &typed)
}

fn program_of(through_cargo: bool, debug: bool, typed: &str) -> String {
    match (through_cargo, debug) {
        (true, true) => "cargo run --".to_owned(),
        (true, false) => "cargo run --release --".to_owned(),
        (false, _) if typed.is_empty() => "chorus".to_owned(),
        (false, _) if typed.chars().all(is_plain) => typed.to_owned(),
        (false, _) => format!("'{}'", typed.replace('\'', r"'\''")),
    }
}

/// Characters that no shell reads as anything but themselves.
fn is_plain(character: char) -> bool {
    character.is_alphanumeric() || "/._-+:\\".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_try_starts_the_program_as_the_user_did() {
        for (through_cargo, debug, typed, shown) in [
            (true, false, "target/release/chorus", "cargo run --release --"),
            (true, true, "target/debug/chorus", "cargo run --"),
            (false, false, "./target/release/chorus", "./target/release/chorus"),
            (false, false, "chorus", "chorus"),
            (false, false, "/my tools/chorus", "'/my tools/chorus'"),
            (false, false, "", "chorus"),
        ] {
            assert_eq!(program_of(through_cargo, debug, typed), shown);
        }
    }

    #[test]
    fn another_address_than_the_default_is_in_the_line_to_try() {
        let worker = ("alto".to_owned(), "127.0.0.1:7001".parse().unwrap(), "demo/alto".to_owned());
        let workers = [worker];
        let default = summary(("127.0.0.1:50051".parse().unwrap(), None), None, 1, &workers, "chorus");
        assert!(default.contains("chorus generate \"ROMEO:\" --max-tokens 200"));
        assert!(!default.contains("--addr"));
        let other = summary(
            ("127.0.0.1:7000".parse().unwrap(), PageAddress::of("https://127.0.0.1:7003")),
            Some("127.0.0.1:7002".parse().unwrap()),
            1,
            &workers,
            "chorus",
        );
        assert!(other.contains("--max-tokens 200 --addr 127.0.0.1:7000"));
        assert!(other.contains("  admin     http://127.0.0.1:7002\n") && !default.contains("admin"));
        let other = anstream::adapter::strip_str(&other).to_string();
        assert!(
            other.contains("  page      https://127.0.0.1:7003  for browsers\n") && !default.contains("page")
        );
        assert!(other.contains("  alto      http://127.0.0.1:7001  demo/alto\n"));
    }
}
