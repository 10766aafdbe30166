//! Every key that a file can have, as a list: what variables are named after, and what the documented file has to explain.
//!
//! Knows nothing about what is configured.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use toml::{Table, Value};

use super::{
    Addresses, AuthConfig, Config, FallbackConfig, LearnedWeights, MemberConfig, PrefixCacheConfig,
    TlsConfig, WorkerTlsConfig,
};
use super::{Connections, Limits, Resilience, Telemetry};
use crate::fusion::Fusion;
use crate::quorum::Quorum;

/// One key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConfigOption {
    /// As `["limits", "max_sessions"]`.
    pub(super) path: Vec<String>,
    /// Some value of its kind.
    pub(super) sample: Value,
}

/// All of them.
pub(super) fn options() -> Vec<ConfigOption> {
    let mut options = Vec::new();
    collect(&mut Vec::new(), &super::change::table(&complete()), &mut options);
    options
}

fn collect(path: &mut Vec<String>, table: &Table, options: &mut Vec<ConfigOption>) {
    for (key, value) in table {
        path.push(key.clone());
        match value {
            Value::Table(table) => collect(path, table, options),
            sample => options.push(ConfigOption { path: path.clone(), sample: sample.clone() }),
        }
        path.pop();
    }
}

/// A configuration in which nothing is absent. No field is left out here, so a new one has to be added.
fn complete() -> Config {
    let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let replicas = || Addresses::new(["http://127.0.0.1:1".to_owned()]);
    Config {
        listen: address(),
        metrics: Some(address()),
        admin: Some(address()),
        http: Some(address()),
        http_hosts: vec!["chorus.example.com".to_owned()],
        weights_file: Some("weights.toml".into()),
        learned: None::<LearnedWeights>,
        fusion: Fusion::default(),
        quorum: Quorum::default(),
        limits: Limits::default(),
        resilience: Resilience::default(),
        prefix_cache: PrefixCacheConfig::default(),
        telemetry: Telemetry { otlp: Some("http://127.0.0.1:1".to_owned()) },
        connections: Connections::default(),
        fallback: Some(FallbackConfig { name: "student".to_owned(), address: replicas() }),
        tls: Some(TlsConfig {
            certificate: "server.pem".into(),
            key: "server.key".into(),
            client_ca: Some("ca.pem".into()),
        }),
        worker_tls: Some(WorkerTlsConfig {
            ca: "ca.pem".into(),
            certificate: Some("client.pem".into()),
            key: Some("client.key".into()),
            server_name: Some("worker".to_owned()),
        }),
        auth: Some(AuthConfig { tokens: "tokens.toml".into(), open_reflection: false }),
        secrets: Arc::default(),
        members: vec![MemberConfig { name: "alto".to_owned(), weight: 1.0, address: replicas() }],
    }
}
