//! Hostile configurations: a file's text, flags, and lists of members that operators send.

use chorus_fuzz::{Encoded, Verdict, any_count, any_f64, assert_one_line, fuzz, mutated, sentence, within};
use chorus_proto::v1::{MemberSettings, Quorum, SetMembersRequest};
use proptest::prelude::*;
use prost::Message;

use crate::admin;
use crate::config::{Config, ConfigError, MemberConfig, Overrides};
use crate::steward::MemberList;
use crate::weights::{Learned, LearnedWeights, LearnedWeightsError, Weighting, Weights};

/// Everything that can be in a configuration.
const WHOLE: &str = r#"
listen = "127.0.0.1:50051"
metrics = "127.0.0.1:9090"
weights = "weights.toml"
[fallback]
name = "student"
address = "http://student:1"
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

/// Lists of members as operators send them, to a coordinator whose configuration holds.
#[test]
fn a_list_of_members_that_is_accepted_is_one_that_a_file_can_have() {
    let in_force = Config::new(Some(SMALL), Overrides::default()).unwrap();
    let name = prop_oneof![6 => "[a-z]{1,3}", 1 => ".{0,70}"];
    let weight = prop::option::weighted(0.6, prop_oneof![5 => 0.0..4.0, 1 => any_f64()]);
    let address = prop_oneof![
        6 => "http://[a-z]{1,3}:[1-9][0-9]{0,3}",
        1 => "dns://[a-z]{1,3}:[1-9]",
        1 => ".{0,30}"
    ];
    let some = prop::collection::vec(address.clone(), 1..3);
    let addresses = prop_oneof![5 => some, 1 => prop::collection::vec(address, 0..3)];
    let member = (name, weight, addresses);
    let member = member.prop_map(|(name, weight, addresses)| MemberSettings { name, weight, addresses });
    let quorum = (prop_oneof![3 => 1..3_u32, 1 => any_count()], prop_oneof![3 => 0.0..1.0, 1 => any_f64()]);
    let quorum = prop::option::weighted(0.3, quorum.prop_map(|(members, weight)| Quorum { members, weight }));
    let some = prop::collection::vec(member.clone(), 1..4);
    let members = prop_oneof![5 => some, 1 => prop::collection::vec(member, 0..4)];
    let request = (members, quorum).prop_map(|(members, quorum)| {
        SetMembersRequest { members, quorum, ..SetMembersRequest::default() }.encode_to_vec()
    });
    fuzz("coordinator: lists of members", mutated(request.boxed(), &WORDS), |Encoded(bytes)| {
        let room = 256 * bytes.len() + 64 * 1024;
        let Ok(request) = within(room, || SetMembersRequest::decode(bytes.as_slice())) else {
            return Verdict::Refused;
        };
        let MemberList { members, quorum, .. } = admin::list(request);
        match within(room, || in_force.with_members(members, quorum)) {
            Ok(config) => {
                assert!(
                    config.weights().is_ok() && (1..=config.members.len()).contains(&config.quorum.members)
                );
                assert_round_trip(&config);
                Verdict::Accepted
            }
            Err(error) => {
                assert_one_line(&sentence(&error), longest_sentence(bytes.len()));
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
    let words =
        ["@", "=", ",", "http://", "https://", "dns://", "inf", "-0", "1e999", "_", "[", "%00", "/", "#"];
    fuzz("coordinator: flags of members", mutated(flags, &words), |Encoded(bytes)| {
        let flag = String::from_utf8_lossy(&bytes);
        match within(256 * flag.len() + 16 * 1024, || flag.parse::<MemberConfig>()) {
            Ok(member) => {
                assert!(member.weight.is_finite() && member.weight >= 0.0);
                let is_heard = member.weight > 0.0;
                // Nobody says here whom its workers' certificates are of.
                let is_secure = flag.to_ascii_lowercase().contains("https://");
                let flags = Overrides { members: vec![member], ..Overrides::default() };
                match Config::new(None, flags) {
                    Ok(config) => assert_round_trip(&config),
                    Err(ConfigError::Security(error)) => assert!(is_secure, "{error:?}"),
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

/// Learned weights of two members, for two rules.
const LEARNED: &str = r#"
format = 1
vocabulary = "sha256:1"
members = [{ name = "alto", model = "a" }, { name = "bass", model = "b" }]
[rules.weighted_average]
method = "em"
tokens = 7
sets = [
    { members = ["alto", "bass"], weights = [0.7, 0.3], perplexity = 17.1 },
    { members = ["bass"], weights = [1.0], perplexity = 18.0 },
]
[rules.threshold_vote]
method = "grid"
tokens = 7
threshold = 0.25
sets = [{ members = ["bass", "alto"], weights = [1.0, 0.0], accuracy = 0.5 }]
"#;

#[test]
fn learned_weights_that_are_accepted_can_be_used_and_written() {
    let names = ["alto", "bass"].map(str::to_owned);
    let text = Just(LEARNED.as_bytes().to_vec());
    fuzz("coordinator: learned weights", mutated(text, &WORDS), |Encoded(bytes)| {
        let text = String::from_utf8_lossy(&bytes);
        let room = 256 * text.len() + (1 << 20);
        match within(room, || LearnedWeights::from_toml(&text)) {
            Ok(learned) => {
                assert_eq!(LearnedWeights::from_toml(&learned.to_toml().unwrap()).unwrap(), learned);
                let Ok(compiled) = within(room, || Learned::new(&learned, &names)) else {
                    return Verdict::Refused;
                };
                for rule in compiled.rules() {
                    let weighting =
                        Weighting::learned(compiled.rule(rule).unwrap().clone(), Weights::equal(2));
                    for participants in [&[0, 1][..], &[0], &[1]] {
                        let of_all = weighting.among(participants).of_all(participants);
                        assert!(crate::weights::shares(&of_all).is_some(), "{of_all:?}");
                    }
                }
                Verdict::Accepted
            }
            // This one shows the place in the file, which takes lines.
            Err(LearnedWeightsError::Toml(_)) => Verdict::Refused,
            Err(error) => {
                assert_one_line(&sentence(&error), longest_sentence(text.len()));
                Verdict::Refused
            }
        }
    });
}
