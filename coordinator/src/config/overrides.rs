//! What flags say in place of a configuration's keys, and which variables are left to say something beside them.
//!
//! Knows nothing about how flags are written, or whether what results is allowed.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{AuthConfig, Config, FallbackConfig, MemberConfig, TlsConfig, Variables, WorkerTlsConfig};
use crate::fusion::Rule;

/// What flags and variables say; whatever is absent stays as the file has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overrides {
    /// What the environment says. Flags stand over it.
    pub variables: Variables,
    /// In place of `listen`.
    pub listen: Option<SocketAddr>,
    /// In place of `metrics`.
    pub metrics: Option<SocketAddr>,
    /// In place of `admin`.
    pub admin: Option<SocketAddr>,
    /// In place of `http`.
    pub http: Option<SocketAddr>,
    /// In place of `http_hosts`, if there are any.
    pub http_hosts: Vec<String>,
    /// In place of `weights`.
    pub weights_file: Option<PathBuf>,
    /// In place of `[fallback]`.
    pub fallback: Option<FallbackConfig>,
    /// In place of `[tls]`.
    pub tls: Option<TlsConfig>,
    /// In place of `[worker_tls]`.
    pub worker_tls: Option<WorkerTlsConfig>,
    /// In place of `auth.tokens`.
    pub auth_tokens: Option<PathBuf>,
    /// In place of all `[[members]]`, if there are any.
    pub members: Vec<MemberConfig>,
    /// In place of `fusion.rule`.
    pub rule: Option<Rule>,
    /// In place of `fusion.threshold`.
    pub threshold: Option<f64>,
    /// In place of `quorum.members`.
    pub quorum_members: Option<usize>,
    /// In place of `quorum.weight`.
    pub quorum_weight: Option<f64>,
    /// In place of `limits.max_sessions`.
    pub max_sessions: Option<u32>,
}

impl Overrides {
    /// The variables that count: no flag says something of their keys.
    pub fn variables_in_effect(&self) -> Variables {
        // All of them are named, so that a new one is not forgotten.
        let Self {
            variables,
            listen,
            metrics,
            admin,
            http,
            http_hosts,
            weights_file,
            auth_tokens,
            rule,
            threshold,
            quorum_members,
            quorum_weight,
            max_sessions,
            fallback: _,
            tls: _,
            worker_tls: _,
            members: _,
        } = self;
        let single = [
            ("listen", listen.is_some()),
            ("metrics", metrics.is_some()),
            ("admin", admin.is_some()),
            ("http", http.is_some()),
            ("http_hosts", !http_hosts.is_empty()),
            ("weights", weights_file.is_some()),
            ("auth.tokens", auth_tokens.is_some()),
            ("fusion.rule", rule.is_some()),
            ("fusion.threshold", threshold.is_some()),
            ("quorum.members", quorum_members.is_some()),
            ("quorum.weight", quorum_weight.is_some()),
            ("limits.max_sessions", max_sessions.is_some()),
        ];
        variables.without(&[self.replaced(), given(&single)].concat())
    }

    /// The keys that flags stand for as a whole.
    pub(super) fn replaced(&self) -> Vec<&'static str> {
        given(&[
            ("tls", self.tls.is_some()),
            ("worker_tls", self.worker_tls.is_some()),
            ("fallback", self.fallback.is_some()),
            ("members", !self.members.is_empty()),
        ])
    }
}

impl Config {
    /// Puts what flags say in place of what is there.
    pub(super) fn apply(&mut self, flags: Overrides) {
        if !flags.members.is_empty() {
            self.members = flags.members;
        }
        self.listen = flags.listen.unwrap_or(self.listen);
        self.metrics = flags.metrics.or(self.metrics);
        self.admin = flags.admin.or(self.admin);
        self.http = flags.http.or(self.http);
        if !flags.http_hosts.is_empty() {
            self.http_hosts = flags.http_hosts;
        }
        self.weights_file = flags.weights_file.or(self.weights_file.take());
        self.fallback = flags.fallback.or(self.fallback.take());
        self.tls = flags.tls.or(self.tls.take());
        self.worker_tls = flags.worker_tls.or(self.worker_tls.take());
        if let Some(tokens) = flags.auth_tokens {
            let open_reflection = self.auth.as_ref().is_some_and(|auth| auth.open_reflection);
            self.auth = Some(AuthConfig { tokens, open_reflection });
        }
        self.fusion.rule = flags.rule.unwrap_or(self.fusion.rule);
        self.fusion.threshold = flags.threshold.unwrap_or(self.fusion.threshold);
        self.quorum.members = flags.quorum_members.unwrap_or(self.quorum.members);
        self.quorum.weight = flags.quorum_weight.unwrap_or(self.quorum.weight);
        self.limits.max_sessions = flags.max_sessions.unwrap_or(self.limits.max_sessions);
    }
}

fn given(keys: &[(&'static str, bool)]) -> Vec<&'static str> {
    keys.iter().filter(|(_, is_given)| *is_given).map(|(key, _)| *key).collect()
}
