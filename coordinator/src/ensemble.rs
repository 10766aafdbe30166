//! [`Ensemble`]: members, vocabulary, settings and admission, as a request finds them when it begins.
//!
//! Knows nothing about gRPC services, about how a process starts and stops, or how the configuration comes to be changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

use chorus_proto::v1::{ErrorCode, Participation};
use chorus_text::Vocabulary;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::Span;

use crate::activity::Activity;
use crate::admission::{Admission, no_room};
use crate::agreement::Agreement;
use crate::config::{Config, Limits, PrefixCacheConfig};
use crate::dense::DenseBudget;
use crate::doubts::Doubts;
use crate::failure::{refused, status};
use crate::fusion::FuseError;
use crate::member::Member;
use crate::plan::Plan;
use crate::prefix_cache::PrefixCache;
use crate::quorum::{Quorum, QuorumError};
use crate::request::{RequestError, Terms};
use crate::roster::Roster;
use crate::security::Security;
use crate::session::{Patience, SessionTerms, StepError};
use crate::telemetry::{Answers, Requests, Settings};
use crate::weights::{Learned, Mismatch, Weights, WeightsError};

/// What a member has for each token of a feed, beside the time for a step: many times what a token takes on a CPU, so
/// that a long input is not taken for a lost member.
const PATIENCE_PER_TOKEN: Duration = Duration::from_millis(10);
/// Texts of more bytes are tokenized on a thread where that holds up nobody.
const LARGE_INPUT: usize = 16 * 1024;
/// Work on more numbers of rows than this goes to such a thread too. Fusing takes 0.15 to 0.5 ns a number with AVX-512, by
/// what is chosen how: so this is some 100 to 200 µs, several times what it takes to hand work to another thread.
const LARGE_WORK: usize = 1 << 19;
/// What a number takes that is not one of a row, but looked up, sorted or written by itself: as long as so many that are.
pub(crate) const NUMBERS_OF_A_LISTED_ONE: usize = 128;

/// What is configured, with what answers: immutable. When the configuration changes there is another one, and requests that
/// have begun keep theirs to their end.
pub(crate) struct Ensemble {
    pub(crate) roster: Arc<Roster>,
    /// What this was made of.
    pub(crate) config: Config,
    /// How many configurations there have been in this process, this one included.
    pub(crate) revision: u64,
    pub(crate) common: Common,
    /// The members' names, in member order.
    pub(crate) names: Vec<String>,
    /// Weights that were learned, by the members' places.
    learned: Option<Learned>,
    /// Whether it was said already that they are not those of these members.
    has_warned: AtomicBool,
    /// Who answers when the quorum is gone: an ensemble of one.
    pub(crate) fallback: Option<Arc<Self>>,
}

/// What stays as it is however often the configuration changes.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) agreement: Arc<Agreement>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) activity: Arc<Activity>,
    /// Cancelled when no more requests are taken.
    pub(crate) draining: CancellationToken,
    /// Cancelled when running requests have to end now.
    pub(crate) stop: CancellationToken,
    /// Certificates in use.
    pub(crate) security: Security,
    /// What is counted of requests.
    pub(crate) requests: Arc<Requests>,
    /// What is counted of answers.
    pub(crate) answers: Arc<Answers>,
    /// What is said of the configuration and of the process.
    pub(crate) settings: Arc<Settings>,
    /// Large texts that are tokenized at a time: more would only take the processors from each other.
    tokenizing: Arc<Semaphore>,
    /// How often workers were found to be wrong.
    pub(crate) doubts: Doubts,
    /// Where members stand after what requests begin with.
    pub(crate) prefixes: Arc<PrefixCache>,
    /// Of the links, which a change leaves as they are.
    dense: DenseBudget,
    /// Sessions that requests may have beside the one that each has.
    branches: Arc<Semaphore>,
    most_branches: u32,
}

impl Common {
    pub(crate) fn new(limits: &Limits, prefix_cache: &PrefixCacheConfig, security: Security) -> Self {
        let draining = CancellationToken::new();
        let doubts = Doubts::default();
        let processors = available_parallelism().map_or(1, usize::from);
        Self {
            agreement: Arc::default(),
            admission: Admission::new(limits, draining.clone()),
            activity: Arc::new(Activity::new()),
            draining,
            stop: CancellationToken::new(),
            security,
            requests: Arc::new(Requests::new()),
            answers: Arc::new(Answers::new()),
            settings: Arc::new(Settings::new()),
            tokenizing: Arc::new(Semaphore::new(processors)),
            prefixes: Arc::new(PrefixCache::new(prefix_cache, doubts.clone())),
            doubts,
            dense: DenseBudget::default(),
            branches: Arc::new(Semaphore::new(limits.max_branches as usize)),
            most_branches: limits.max_branches,
        }
    }

    /// Of a configuration without certificates.
    #[cfg(test)]
    pub(crate) fn of_tests(config: &Config) -> Self {
        Self::new(&config.limits, &config.prefix_cache, Security::default())
    }

    /// Waits, in the order of asking, for a request that has so many sessions at a time at every member; fewer where no
    /// more are allowed. They are given back when what comes is dropped.
    pub(crate) async fn branches(&self, sessions: usize) -> Option<OwnedSemaphorePermit> {
        let beside = u32::try_from(sessions.saturating_sub(1)).unwrap_or(u32::MAX).min(self.most_branches);
        // Never closed.
        Arc::clone(&self.branches).acquire_many_owned(beside).await.ok()
    }
}

impl Ensemble {
    /// `member` gives whoever is configured under a name.
    ///
    /// # Errors
    /// Weights that can't be shared; never for a configuration that was checked.
    pub(crate) fn new(
        config: Config,
        revision: u64,
        member: impl Fn(&str) -> Option<Arc<Member>>,
        common: Common,
    ) -> Result<Self, WeightsError> {
        let fallback = config.fallback.as_ref().and_then(|fallback| member(&fallback.name));
        let fallback = fallback.map(|fallback| Self::of_one(&config, revision, fallback, common.clone()));
        let names = config.member_names();
        let roster = Roster {
            members: names.iter().filter_map(|name| member(name)).collect(),
            weights: config.weights()?,
            quorum: config.quorum,
            dense: common.dense.clone(),
        };
        Ok(Self {
            roster: Arc::new(roster),
            learned: config.learned(),
            has_warned: AtomicBool::new(false),
            fallback: fallback.map(Arc::new),
            names,
            config,
            revision,
            common,
        })
    }

    /// The ensemble that some of the members make; that of all is this one itself. It has the quorum of this one, or all of
    /// its members where that wants more, and no fallback.
    ///
    /// # Errors
    /// A name that is no member's, or stands there twice; members without a weight.
    pub(crate) fn of(self: &Arc<Self>, names: &[String]) -> Result<Arc<Self>, RequestError> {
        if names.is_empty() {
            return Ok(Arc::clone(self));
        }
        let places = self.places_of(names)?;
        let of_all = places.iter().map(|place| ("", self.roster.weights.of(*place)));
        let weights = Weights::new(of_all);
        let weights = weights.map_err(|error| RequestError::new("fusion.members", error.to_string()))?;
        let members: Vec<_> =
            places.iter().filter_map(|place| self.roster.members.get(*place).cloned()).collect();
        let quorum = Quorum { members: self.roster.quorum.members.min(members.len()), ..self.roster.quorum };
        let names: Vec<String> = members.iter().map(|member| member.name().to_owned()).collect();
        let roster = Roster { members, weights, quorum, dense: self.common.dense.clone() };
        Ok(Arc::new(Self {
            roster: Arc::new(roster),
            learned: self.config.learned_of(&names),
            has_warned: AtomicBool::new(self.has_warned.load(Ordering::Relaxed)),
            fallback: None,
            names,
            config: self.config.clone(),
            revision: self.revision,
            common: self.common.clone(),
        }))
    }

    /// Of these members, in member order.
    fn places_of(&self, names: &[String]) -> Result<Vec<usize>, RequestError> {
        let error = |message: String| {
            let allowed = self.names.join(", ");
            RequestError::new(
                "fusion.members",
                format!("{message}; allowed: each of {allowed} once, or none for all"),
            )
        };
        let mut places = Vec::new();
        for name in names {
            let place = self.names.iter().position(|member| member == name);
            let place = place.ok_or_else(|| error(format!("{name:?} is no member")))?;
            if places.contains(&place) {
                return Err(error(format!("{name:?} is there twice")));
            }
            places.push(place);
        }
        places.sort_unstable();
        Ok(places)
    }

    fn of_one(config: &Config, revision: u64, member: Arc<Member>, common: Common) -> Self {
        let names = vec![member.name().to_owned()];
        let roster = Roster {
            members: vec![member],
            weights: Weights::equal(1),
            quorum: Quorum::default(),
            dense: common.dense.clone(),
        };
        Self {
            roster: Arc::new(roster),
            learned: None,
            has_warned: AtomicBool::new(false),
            fallback: None,
            names,
            config: config.clone(),
            revision,
            common,
        }
    }

    /// Whether somebody can answer now: the members, or the fallback.
    ///
    /// # Errors
    /// What the members are short of.
    pub(crate) fn can_answer(&self) -> Result<(), QuorumError> {
        let by_fallback = || self.fallback.as_ref().is_some_and(|fallback| fallback.can_answer().is_ok());
        self.roster.can_answer().or_else(|error| if by_fallback() { Ok(()) } else { Err(error) })
    }

    /// The weights that were learned, if there are any, where they are those of the models that the members host.
    ///
    /// # Errors
    /// What does not match.
    pub(crate) fn learned(&self) -> Result<Option<&Learned>, Mismatch> {
        let Some(learned) = &self.learned else {
            return Ok(None);
        };
        let cards: Vec<_> = self.roster.members.iter().map(|member| member.card()).collect();
        learned.check(cards.iter().map(Option::as_deref)).map(|()| Some(learned))
    }

    /// The same for requests, which do without them where they do not match.
    fn learned_in_force(&self) -> Option<&Learned> {
        self.learned().unwrap_or_else(|mismatch| {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                tracing::error!(%mismatch, "the learned weights are of another ensemble and are not used");
            }
            None
        })
    }

    /// The vocabulary, without which no request can be understood.
    pub(crate) fn vocabulary(&self) -> Result<Vocabulary, Status> {
        self.common.agreement.vocabulary().ok_or_else(|| {
            let missing = self.can_answer().err();
            let missing = missing.map(|error| error.to_string());
            let message = missing.unwrap_or_else(|| "no member was reached yet".to_owned());
            status(ErrorCode::Unavailable, message)
        })
    }

    /// Checks a request by `check` (one of the constructors in [`crate::request`]); `text_bytes` is how much there is to
    /// tokenize. Gives the vocabulary that its tokens are of, too: the ensemble's may be replaced while the request is in
    /// progress.
    pub(crate) async fn check<R: Send + 'static, T: Send + 'static>(
        self: &Arc<Self>,
        request: R,
        text_bytes: usize,
        check: fn(R, &Terms<'_>) -> Result<T, RequestError>,
    ) -> Result<(T, Vocabulary), Status> {
        let vocabulary = self.vocabulary()?;
        let ensemble = Arc::clone(self);
        let large = text_bytes > LARGE_INPUT;
        // Never closed; held by the work itself, which goes on when its caller is gone.
        let turn = if large { Arc::clone(&self.common.tokenizing).acquire_owned().await.ok() } else { None };
        let checked = offload(large, move || {
            let _turn = turn;
            let terms = Terms {
                vocabulary: &vocabulary,
                limits: &ensemble.config.limits,
                fusion: &ensemble.config.fusion,
                members: &ensemble.names,
                weights: &ensemble.roster.weights,
                learned: ensemble.learned_in_force(),
            };
            let checked = check(request, &terms);
            let checked = checked.map_err(|error| refused(&error))?;
            Ok((checked, vocabulary))
        });
        checked.await?
    }

    /// What holds for a session that is led for this plan, and for a caller who waits until then.
    pub(crate) fn session_terms(&self, plan: Plan, deadline: Option<Instant>) -> SessionTerms {
        let resilience = &self.config.resilience;
        let patience = Patience {
            step: self.config.limits.step_timeout(),
            token: PATIENCE_PER_TOKEN,
            silence: resilience.silence(),
            silence_of_all: resilience.degrade_after(),
        };
        let snapshot_tokens = resilience.snapshot_tokens;
        SessionTerms {
            patience,
            plan: plan.kind(),
            snapshot_tokens,
            prompt_tokens: 0,
            early_decision: resilience.early_decision,
            require_all: false,
            is_traced: chorus_trace::is_sampled(&Span::current()),
            deadline,
        }
    }
}

/// Runs `work` on `numbers` numbers of rows, or what takes as long: here if that is quick, else on a thread for such work.
pub(crate) async fn compute<T: Send + 'static>(
    numbers: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    offload(numbers > LARGE_WORK, work).await
}

async fn offload<T: Send + 'static>(
    large: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    if !large {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| status(ErrorCode::Internal, "a computation of the server was interrupted"))
}

/// A step without a result, as clients see it.
pub(crate) fn step_status(error: &StepError) -> Status {
    match error {
        StepError::BelowQuorum(_) => status(ErrorCode::Unavailable, error.to_string()),
        StepError::Exhausted(_) => no_room(&error.to_string()),
        StepError::Refused(_) => status(ErrorCode::InvalidArgument, error.to_string()),
    }
}

/// Answers that can't be fused, as clients see it.
pub(crate) fn fuse_status(error: FuseError, participation: &Participation) -> Status {
    match error {
        FuseError::NoParticipants | FuseError::NoWeight => {
            let missing = participation.missing.iter();
            let missing: Vec<_> =
                missing.map(|member| format!("{} ({})", member.name, member.reason)).collect();
            let message = format!("{error}; missing: {}", missing.join(", "));
            status(ErrorCode::Unavailable, message)
        }
        FuseError::Lengths { .. } | FuseError::Unsound { .. } => {
            status(ErrorCode::Internal, error.to_string())
        }
    }
}
