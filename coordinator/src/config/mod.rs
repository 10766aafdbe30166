//! What an operator decides: members, rule, quorum, limits, resilience. Read from TOML, overridden by flags, checked as a whole.
//! Knows nothing about files, flags' parsers or what the values are used for.

mod addresses;
mod change;
mod connections;
mod fallback;
mod key;
mod learned;
mod limits;
mod member;
mod options;
mod overrides;
mod prefix_cache;
mod resilience;
mod security;
mod telemetry;
mod variables;

#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use crate::security::TokensError;
pub use addresses::{Addresses, AddressesError, Location};
pub(crate) use change::Fate;
pub use change::Frozen;
pub use connections::{Compression, Connections, ConnectionsError};
pub use fallback::FallbackConfig;
pub use limits::{Limits, LimitsError};
pub use member::{MemberConfig, MemberError, MemberFlagError};
pub use overrides::Overrides;
pub use prefix_cache::{PrefixCacheConfig, PrefixCacheError};
pub use resilience::{Resilience, ResilienceError};
pub(crate) use security::Secrets;
pub use security::{AuthConfig, SecretsError, SecurityError, TlsConfig, WorkerTlsConfig};
pub use telemetry::{Telemetry, TelemetryError};
pub use variables::{VariableError, Variables};

use crate::{
    fusion::Fusion,
    quorum::Quorum,
    security::Setup,
    weights::{LearnedWeights, LearnedWeightsError, Mismatch, Weights, WeightsError},
};

/// Everything that one ensemble is configured with.
///
/// ```
/// use chorus_coordinator::config::{Config, Overrides};
///
/// let flags = Overrides {
///     members: vec!["alto@2=http://127.0.0.1:50061".parse()?],
///     ..Overrides::default()
/// };
/// let config = Config::new(Some("[fusion]\nrule = 'log_linear'"), flags)?;
/// assert_eq!(config.members[0].weight, 2.0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients are served.
    pub listen: SocketAddr,
    /// Where metrics are served, for whoever installs their recorder; nowhere where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// Where operators change the members while it runs; nowhere where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin: Option<SocketAddr>,
    /// Where the page is served, for whoever serves one; nowhere where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// The names by which browsers may reach the page over plain text, beside `localhost` and addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http_hosts: Vec<String>,
    /// Where weights are that were learned, for whoever reads files and calls [`Config::learn`]; nowhere where absent.
    #[serde(rename = "weights", skip_serializing_if = "Option::is_none")]
    pub weights_file: Option<PathBuf>,
    /// The weights that were learned, in place of the members' own.
    #[serde(skip)]
    pub learned: Option<LearnedWeights>,
    /// The rule, and the threshold of the vote, where a request does not say otherwise.
    pub fusion: Fusion,
    /// The least participation with which an answer goes out.
    pub quorum: Quorum,
    /// What requests and members are held to.
    pub limits: Limits,
    /// How the loss of a replica is kept from showing.
    pub resilience: Resilience,
    /// How much of what requests begin with is kept.
    pub prefix_cache: PrefixCacheConfig,
    /// Where traces go.
    pub telemetry: Telemetry,
    /// How connections with clients are kept, and what is packed on them.
    pub connections: Connections,
    /// Who answers in place of the members when their quorum is gone; nobody where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackConfig>,
    /// TLS where clients and operators connect; plain text where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// TLS to workers at `https://` addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_tls: Option<WorkerTlsConfig>,
    /// Who may come; everybody where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthConfig>,
    /// What the files hold that these name.
    #[serde(skip)]
    pub(crate) secrets: Arc<Secrets>,
    /// The members, in member order: the order in which their answers are fused.
    pub members: Vec<MemberConfig>,
}

/// Why a configuration is none.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No name of a machine.
    #[error(
        "http_hosts: {0:?} is not allowed; allowed: names such as chorus.example.com, without scheme and port"
    )]
    Host(String),
    /// Not TOML, an unknown key, or a value of another kind. The source says in which line.
    #[error("the configuration can't be read")]
    Toml(#[from] toml::de::Error),
    /// A variable of another kind, or that is not enough by itself.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// There is nobody to ask.
    #[error(
        "members: there are none; allowed: at least one, by [[members]] in the file or --member name=http://host:port"
    )]
    NoMembers,
    /// A member that can't be one.
    #[error("members: member {name:?} can't be used")]
    Member {
        /// Its name, as given.
        name: String,
        /// Why.
        source: MemberError,
    },
    /// Two members of the same name.
    #[error("members: {name:?} is there twice; allowed: every name once")]
    DuplicateMember {
        /// The name.
        name: String,
    },
    /// A fallback that can't be one.
    #[error("fallback: it can't be used")]
    Fallback(#[source] MemberError),
    /// A fallback that is a member, too.
    #[error("fallback: {0:?} is a member; allowed: another name")]
    FallbackIsMember(String),
    /// Learned weights that are none.
    #[error("weights: the learned weights can't be used")]
    LearnedWeights(#[from] LearnedWeightsError),
    /// Learned weights of other members.
    #[error("weights: the learned weights are of another ensemble")]
    OtherEnsemble(#[from] Mismatch),
    /// Weights that can't be shared.
    #[error("members: the weights can't be used")]
    Weights(#[from] WeightsError),
    /// θ out of its range.
    #[error("fusion.threshold: {0} is not allowed; allowed: at least 0 and less than 1")]
    Threshold(f64),
    /// A quorum of no members, or of more than there are.
    #[error("quorum.members: {quorum} is not allowed; allowed: 1 to {members}, the number of members")]
    QuorumMembers {
        /// The least number of members, as given.
        quorum: usize,
        /// How many there are.
        members: usize,
    },
    /// A share that is none.
    #[error("quorum.weight: {0} is not allowed; allowed: 0 to 1, a share of the total weight")]
    QuorumWeight(f64),
    /// A limit under which nothing works.
    #[error("limits can't be used")]
    Limits(#[from] LimitsError),
    /// Intervals that are none.
    #[error(transparent)]
    Connections(#[from] ConnectionsError),
    /// Certificates that are not enough.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Patience or a share that can't be.
    #[error("resilience can't be used")]
    Resilience(#[from] ResilienceError),
    /// Beginnings of no tokens.
    #[error(transparent)]
    PrefixCache(#[from] PrefixCacheError),
    /// Traces that can't be sent.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50051)),
            metrics: None,
            admin: None,
            http: None,
            http_hosts: Vec::new(),
            weights_file: None,
            learned: None,
            fusion: Fusion::default(),
            quorum: Quorum::default(),
            limits: Limits::default(),
            resilience: Resilience::default(),
            prefix_cache: PrefixCacheConfig::default(),
            telemetry: Telemetry::default(),
            connections: Connections::default(),
            fallback: None,
            tls: None,
            worker_tls: None,
            auth: None,
            secrets: Arc::default(),
            members: Vec::new(),
        }
    }
}

impl Config {
    /// The file's text, if there is one, with what variables and flags override, checked as a whole.
    ///
    /// # Errors
    /// The first thing that is wrong: its key, what was given, what is allowed.
    pub fn new(toml: Option<&str>, flags: Overrides) -> Result<Self, ConfigError> {
        let toml = toml.unwrap_or_default();
        let mut config: Self = toml::from_str(toml)?;
        let variables = flags.variables.without(&flags.replaced());
        if variables != Variables::default() {
            config = variables.over(toml)?;
        }
        config.apply(flags);
        config.check()?;
        Ok(config)
    }

    /// The same with other members, and another quorum where one is given, checked as a whole.
    ///
    /// # Errors
    /// As [`Config::new`].
    pub fn with_members(
        &self,
        members: Vec<MemberConfig>,
        quorum: Option<Quorum>,
    ) -> Result<Self, ConfigError> {
        let mut config = Self { members, quorum: quorum.unwrap_or(self.quorum), ..self.clone() };
        config.check()?;
        config.keep_learned(self);
        Ok(config)
    }

    /// Whether certificates, keys and tokens that were read can be used, as whoever serves with them finds out.
    ///
    /// # Errors
    /// The first file that can't, and why.
    pub fn check_secrets(&self) -> Result<(), SecretsError> {
        Setup::new(self).map(|_| ())
    }

    /// All who are connected to: the members, in member order, and the fallback.
    pub(crate) fn connected(&self) -> Vec<MemberConfig> {
        let fallback = self.fallback.as_ref().map(FallbackConfig::as_member);
        self.members.iter().cloned().chain(fallback).collect()
    }

    /// The members' names, in member order.
    pub fn member_names(&self) -> Vec<String> {
        self.members.iter().map(|member| member.name.clone()).collect()
    }

    /// The members' weights, in member order.
    ///
    /// # Errors
    /// Weights that can't be shared; never for a configuration that was checked.
    pub fn weights(&self) -> Result<Weights, WeightsError> {
        Weights::new(self.members.iter().map(|member| (member.name.as_str(), member.weight)))
    }

    fn check_hosts(&self) -> Result<(), ConfigError> {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_name = |host: &String| !host.is_empty() && host.bytes().all(is_of_name);
        match self.http_hosts.iter().find(|host| !is_name(host)) {
            Some(host) => Err(ConfigError::Host(host.clone())),
            None => Ok(()),
        }
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_members()?;
        self.weights()?;
        if !Fusion::threshold_is_valid(self.fusion.threshold) {
            return Err(ConfigError::Threshold(self.fusion.threshold));
        }
        let Quorum { members: quorum, weight } = self.quorum;
        let members = self.members.len();
        if !(1..=members).contains(&quorum) {
            return Err(ConfigError::QuorumMembers { quorum, members });
        }
        if !(0.0..=1.0).contains(&weight) {
            return Err(ConfigError::QuorumWeight(weight));
        }
        self.limits.check()?;
        self.check_hosts()?;
        self.check_security()?;
        self.connections.check()?;
        self.resilience.check()?;
        self.prefix_cache.check()?;
        Ok(self.telemetry.check()?)
    }

    fn check_members(&self) -> Result<(), ConfigError> {
        if self.members.is_empty() {
            return Err(ConfigError::NoMembers);
        }
        for (place, member) in self.members.iter().enumerate() {
            let name = || member.name.clone();
            member.check().map_err(|source| ConfigError::Member { name: name(), source })?;
            if self.members.iter().take(place).any(|other| other.name == member.name) {
                return Err(ConfigError::DuplicateMember { name: name() });
            }
        }
        let Some(fallback) = &self.fallback else {
            return Ok(());
        };
        fallback.as_member().check().map_err(ConfigError::Fallback)?;
        if self.members.iter().any(|member| member.name == fallback.name) {
            return Err(ConfigError::FallbackIsMember(fallback.name.clone()));
        }
        Ok(())
    }
}
