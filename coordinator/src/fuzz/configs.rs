//! Hostile configurations, as a file's text and as flags.

use chorus_fuzz::{Encoded, Verdict, assert_one_line, fuzz, mutated, sentence, within};
use proptest::prelude::*;

use crate::config::{Config, ConfigError, MemberConfig, Overrides};

/// Everything that can be in a configuration.
const WHOLE: &str = r#"
listen = "127.0.0.1:50051"
metrics = "127.0.0.1:9090"
[fusion]
rule = "threshold_vote"
threshold = 0.25
[quorum]
members = 1
weight = 0.5
[limits]
max_sessions = 9
step_timeout_ms = 800
[resilience]
degrade_after_ms = 900
hedge_share = 0.1
early_decision = false
[[members]]
name = "alto"
weight = 2.5
address = ["http://alto:1", "http://alto:2"]
[[members]]
name = "bass"
address = "dns://bass.local:7"
"#;
const SMALL: &str = "[[members]]\nname = 'tenor'\naddress = 'http://[::1]:50061'\n";
const WORDS: [&str; 14] = [
    "nan",
    "inf",
    "-0.0",
    "[[members]]\n",
    "[limits]\n",
    "max_waiting = 0\n",
    "weight = ",
    "1979-05-27",
    "{}",
    "[]",
    "\"\"",
    "dns://",
    "http://",
    "\n",
];

fn longest_sentence(bytes: usize) -> usize {
    // What is wrong is quoted, and each of its characters may be written as an escape.
    400 + 10 * bytes
}

/// What is accepted says the same when it is written down and read again.
fn assert_round_trip(config: &Config) {
    let text = toml::to_string(config).unwrap();
    let again = Config::new(Some(&text), Overrides::default()).unwrap();
    assert_eq!(&again, config, "{text}");
}

#[test]
fn a_configuration_that_is_accepted_is_one_when_it_is_written_down() {
    let texts = prop::sample::select(vec![WHOLE.as_bytes().to_vec(), SMALL.as_bytes().to_vec()]);
    fuzz("coordinator: configurations", mutated(texts, &WORDS), |Encoded(bytes)| {
        let text = String::from_utf8_lossy(&bytes);
        let room = 256 * text.len() + 64 * 1024;
        match within(room, || Config::new(Some(&text), Overrides::default())) {
            Ok(config) => {
                assert!(
                    config.weights().is_ok() && (1..=config.members.len()).contains(&config.quorum.members)
                );
                assert_round_trip(&config);
                Verdict::Accepted
            }
            // This one shows the place in the file, which takes lines.
            Err(ConfigError::Toml(_)) => Verdict::Refused,
            Err(error) => {
                assert_one_line(&sentence(&error), longest_sentence(text.len()));
                Verdict::Refused
            }
        }
    });
}

#[test]
fn a_member_that_a_flag_names_is_one_that_a_file_can_have() {
    let flags =
        ["alto@2.5=http://alto:1,http://alto:2", "bass=dns://bass.local:7", "tenor@1e-3=http://[::1]:50061"];
    let flags = prop::sample::select(flags.map(|flag| flag.as_bytes().to_vec()).to_vec());
    let words = ["@", "=", ",", "http://", "dns://", "inf", "-0", "1e999", "_", "[", "%00", "/", "#"];
    fuzz("coordinator: flags of members", mutated(flags, &words), |Encoded(bytes)| {
        let flag = String::from_utf8_lossy(&bytes);
        match within(256 * flag.len() + 16 * 1024, || flag.parse::<MemberConfig>()) {
            Ok(member) => {
                assert!(member.weight.is_finite() && member.weight >= 0.0);
                let is_heard = member.weight > 0.0;
                let flags = Overrides { members: vec![member], ..Overrides::default() };
                match Config::new(None, flags) {
                    Ok(config) => assert_round_trip(&config),
                    Err(error) => assert!(!is_heard && matches!(error, ConfigError::Weights(_)), "{error:?}"),
                }
                Verdict::Accepted
            }
            Err(error) => {
                assert_one_line(&sentence(&error), longest_sentence(flag.len()));
                Verdict::Refused
            }
        }
    });
}
