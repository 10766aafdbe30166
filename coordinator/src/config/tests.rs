//! A configuration as a whole: what the file says, what flags override, and every message.

use std::error::Error as _;

use super::*;
use crate::fusion::Rule;

const TWO: &str = "[[members]]\nname = 'alto'\naddress = 'http://h:1'\n[[members]]\nname = 'bass'\nweight = 2.0\naddress = 'http://h:2'\n";

fn read(toml: &str) -> Result<Config, ConfigError> {
    Config::new(Some(toml), Overrides::default())
}

/// The messages of an error and of its causes, as people see them.
fn messages(error: &ConfigError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn the_example_in_deploy_is_a_configuration_that_states_the_defaults() {
    let example = include_str!("../../../deploy/ensemble.toml");
    let config = read(example).unwrap();
    assert_eq!(config.member_names(), ["alto", "bass", "tenor"]);
    let defaults = Config { members: config.members.clone(), ..Config::default() };
    assert_eq!(config, defaults);
    let written = toml::to_string(&config).unwrap();
    assert_eq!(read(&written).unwrap(), config);
}

/// Also those that are absent by default, which stand there as comments.
#[test]
fn the_example_in_deploy_has_every_key() {
    let example = include_str!("../../../deploy/ensemble.toml");
    let is_key = |line: &str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let is_table = |line: &str| line.starts_with('[') && line.ends_with(']');
    let lines = example.lines().map(|line| line.strip_prefix("# ").unwrap_or(line));
    let text: Vec<&str> = lines.filter(|line| is_key(line) || is_table(line)).collect();
    // Above the tables stand the keys of none.
    let (keys, tables): (Vec<&str>, Vec<&str>) = {
        let first = text.iter().position(|line| is_table(line)).unwrap();
        (text[..first].to_vec(), text[first..].to_vec())
    };
    let whole: toml::Table = toml::from_str(&[keys, tables].concat().join("\n")).unwrap();
    for option in options::options() {
        let found = option
            .path
            .iter()
            .try_fold(&toml::Value::Table(whole.clone()), |value, key| value.get(key))
            .is_some();
        assert!(found, "{}", option.path.join("."));
    }
}

#[test]
fn a_file_of_members_alone_has_the_defaults() {
    let config = read(TWO).unwrap();
    assert_eq!(config.weights().unwrap().as_slice(), [1.0, 2.0]);
    assert_eq!(config.listen, "127.0.0.1:50051".parse().unwrap());
    assert_eq!(config.fusion, Fusion::default());
}

#[test]
fn flags_override_the_file() {
    let flags = Overrides {
        listen: Some("0.0.0.0:1".parse().unwrap()),
        metrics: Some("0.0.0.0:4".parse().unwrap()),
        admin: Some("0.0.0.0:6".parse().unwrap()),
        http: Some("0.0.0.0:8".parse().unwrap()),
        http_hosts: vec!["flag.example".to_owned()],
        weights_file: Some("flag.toml".into()),
        fallback: Some("flag=http://h:9".parse().unwrap()),
        tls: Some(TlsConfig { certificate: "flag.pem".into(), key: "flag.key".into(), client_ca: None }),
        worker_tls: Some(WorkerTlsConfig {
            ca: "flag-ca.pem".into(),
            certificate: None,
            key: None,
            server_name: None,
        }),
        auth_tokens: Some("flag-tokens.toml".into()),
        variables: Variables::default(),
        members: vec!["solo=http://h:3".parse().unwrap()],
        rule: Some(Rule::LogitMax),
        threshold: Some(0.25),
        quorum_members: Some(1),
        quorum_weight: Some(0.5),
        max_sessions: Some(7),
    };
    let file = "listen = '127.0.0.1:2'\nmetrics = '127.0.0.1:3'\nadmin = '127.0.0.1:5'\nhttp = '127.0.0.1:7'\nweights = 'file.toml'";
    let file = format!(
        "{file}\n[fallback]\nname = 'file'\naddress = 'http://h:8'\n[quorum]\nmembers = 2\n[fusion]\nrule = 'log_linear'\n\
         [tls]\ncertificate = 'a'\nkey = 'b'\nclient_ca = 'c'\n[worker_tls]\nca = 'd'\n[auth]\ntokens = 'e'\n{TWO}"
    );
    let config = Config::new(Some(&file), flags.clone()).unwrap();
    assert_eq!(config.member_names(), ["solo"]);
    assert_eq!(Config::new(None, flags).unwrap(), config);
    assert_eq!(config.fusion, Fusion { rule: Rule::LogitMax, threshold: 0.25 });
    assert_eq!(config.quorum, Quorum { members: 1, weight: 0.5 });
    assert_eq!(config.limits.max_sessions, 7);
    let files = |config: &Config| {
        let tls = config.tls.clone().map(|tls| (tls.certificate, tls.key, tls.client_ca));
        (tls, config.worker_tls.clone().map(|tls| tls.ca))
    };
    let tokens = |config: &Config| config.auth.clone().map(|auth| auth.tokens);
    assert_eq!(tokens(&config), Some("flag-tokens.toml".into()));
    assert_eq!(
        files(&config),
        (Some(("flag.pem".into(), "flag.key".into(), None)), Some("flag-ca.pem".into()))
    );
    let kept = Config::new(Some(&file), Overrides::default()).unwrap();
    assert_eq!(tokens(&kept), Some("e".into()));
    assert_eq!(files(&kept), (Some(("a".into(), "b".into(), Some("c".into()))), Some("d".into())));
    assert_eq!((kept.quorum.members, kept.fusion.rule), (2, Rule::LogLinear));
    let metrics =
        [&config, &kept, &read(TWO).unwrap()].map(|config| config.metrics.map(|address| address.port()));
    assert_eq!(metrics, [Some(4), Some(3), None]);
    let admin =
        [&config, &kept, &read(TWO).unwrap()].map(|config| config.admin.map(|address| address.port()));
    assert_eq!(admin, [Some(6), Some(5), None]);
    let http = [&config, &kept, &read(TWO).unwrap()].map(|config| config.http.map(|address| address.port()));
    assert_eq!(http, [Some(8), Some(7), None]);
    assert_eq!(config.http_hosts, ["flag.example"]);
}

#[test]
fn what_is_not_a_configuration_is_shown_with_its_line() {
    let cases = [
        ("colour = 'red'", "unknown field `colour`", "line 1"),
        ("listen = 'here'", "invalid socket address", "line 1"),
        ("\n[limits]\nmax_inputs = 1", "unknown field `max_inputs`", "line 3"),
        (
            "[fusion]\nrule = 'averaging'",
            "unknown variant `averaging`, expected one of `weighted_average`",
            "line 2",
        ),
        ("[quorum]\nshare = 0.5", "unknown field `share`", "line 2"),
        ("[[members]]\nname = 'alto'\ncolour = 1", "unknown field `colour`", "line 3"),
        ("[[members]]\nname = 'alto'", "missing field `address`", "line 1"),
        ("[limits]\nmax_top_n = -1", "invalid value", "line 2"),
        ("[quorum]\nmembers = -1", "invalid value", "line 2"),
        ("listen = ", "string values must be quoted", "line 1"),
    ];
    for (toml, problem, line) in cases {
        let message = messages(&read(toml).unwrap_err());
        assert!(message.contains(problem), "{toml:?}: {message}");
        assert!(message.contains(line), "{toml:?}: {message}");
    }
}

#[test]
fn what_can_t_be_is_refused_by_its_key() {
    let cases = [
        ("", "members: there are none"),
        (
            "[fusion]\nthreshold = 1.0",
            "fusion.threshold: 1 is not allowed; allowed: at least 0 and less than 1",
        ),
        ("[fusion]\nthreshold = nan", "fusion.threshold: NaN is not allowed"),
        ("[quorum]\nmembers = 0", "quorum.members: 0 is not allowed; allowed: 1 to 2, the number of members"),
        ("[quorum]\nmembers = 3", "quorum.members: 3 is not allowed; allowed: 1 to 2, the number of members"),
        ("[quorum]\nweight = 1.5", "quorum.weight: 1.5 is not allowed; allowed: 0 to 1"),
        ("[quorum]\nweight = nan", "quorum.weight: NaN is not allowed"),
        (
            "[connections]\nkeepalive_ms = 0",
            "connections.keepalive_ms: 0 is not allowed; allowed: at least 1",
        ),
        ("[limits]\nmax_top_n = 0", "limits.max_top_n: 0 is not allowed; allowed: 1 to 4294967295"),
        (
            "[limits]\nmax_input_bytes = 67108865",
            "limits.max_input_bytes: 67108865 is not allowed; allowed: 1 to",
        ),
        (
            "[limits]\nmax_tokens_in_progress = 0",
            "limits.max_tokens_in_progress: 0 is not allowed; allowed: 1 to 4294967295",
        ),
        ("[limits]\nmax_wait_ms = 0", "limits.max_wait_ms: 0 is not allowed; allowed: 1 to 4294967295"),
        ("[limits]\nmax_waiting = 4294967296", "invalid value"),
        ("[limits]\nstep_timeout_ms = 0", "limits.step_timeout_ms: 0 is not allowed"),
        ("[[members]]\nname = 'alto'\naddress = 'http://h:9'", "members: \"alto\" is there twice"),
        (
            "http_hosts = ['a.example', 'https://b.example']",
            "http_hosts: \"https://b.example\" is not allowed",
        ),
        (
            "[[members]]\nname = 'A B'\naddress = 'http://h:9'",
            "the name is \"A B\"; allowed: 1 to 64 characters",
        ),
        ("[[members]]\nname = 'tuba'\naddress = 'h:9'", "the address is \"h:9\"; allowed: http://host:port"),
        (
            "[[members]]\nname = 'tuba'\nweight = -1.0\naddress = 'http://h:9'",
            "the weight of member \"tuba\" is -1",
        ),
        (
            "[[members]]\nname = 'tuba'\nweight = inf\naddress = 'http://h:9'",
            "the weight of member \"tuba\" is inf",
        ),
    ];
    for (toml, problem) in cases {
        let toml = if toml.is_empty() { String::new() } else { format!("{toml}\n{TWO}") };
        let message = messages(&read(&toml).unwrap_err());
        assert!(message.contains(problem), "{toml:?}: {message}");
    }
}

#[test]
fn a_line_may_be_left_out() {
    let config = read(&format!("[limits]\nmax_waiting = 0\n{TWO}")).unwrap();
    assert_eq!(config.limits.max_waiting, 0);
}

#[test]
fn somebody_must_have_a_weight() {
    let weightless = TWO.replace("name = 'alto'", "name = 'alto'\nweight = 0.0");
    let weightless = weightless.replace("weight = 2.0", "weight = 0.0");
    let message = messages(&read(&weightless).unwrap_err());
    assert!(message.contains("every weight is 0"), "{message}");
}
