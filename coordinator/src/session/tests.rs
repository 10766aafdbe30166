//! A session at a member with several replicas that are lost, silent, slow or leave: what is read where, and what it costs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use chorus_proto::v1::RowFormat;
use chorus_text::Vocabulary;
use tokio::time::Instant;

use super::member_session::MemberSession;
use super::terms::{Patience, SessionTerms};
use super::transcript::Transcript;
use crate::member::Member;
use crate::plan::{Ask, Plan, PlanKind};
use crate::replica::{Answer, Replica, ReplicaError};
use crate::testing::scripted_replica::{Act, ScriptedReplica, snapshot};

const MILLISECOND: Duration = Duration::from_millis(1);
const SILENCE: Duration = Duration::from_millis(200);
const SILENCE_OF_ALL: Duration = Duration::from_secs(1);
const STEP: Duration = Duration::from_secs(5);
const SNAPSHOT_TOKENS: u32 = 4;

/// One session at one member with two replicas, or as many as a test wants.
struct Stage {
    replicas: Vec<Arc<ScriptedReplica>>,
    member: Arc<Member>,
    transcript: Transcript,
    session: Box<MemberSession>,
}

impl Stage {
    fn new() -> Self {
        Self::with(|terms| terms, 0.0)
    }

    fn of(replicas: usize) -> Self {
        Self::of_as(replicas, |terms| terms, 0.0)
    }

    fn with(terms: impl FnOnce(SessionTerms) -> SessionTerms, hedge_share: f32) -> Self {
        Self::of_as(2, terms, hedge_share)
    }

    fn of_as(count: usize, terms: impl FnOnce(SessionTerms) -> SessionTerms, hedge_share: f32) -> Self {
        let vocabulary = Vocabulary::train_characters("abcdefgh").unwrap();
        // The same model in each.
        let replica = |number: usize| ScriptedReplica::new(&format!("replica-{number}"), 7, &vocabulary);
        let replicas: Vec<Arc<ScriptedReplica>> = (0..count).map(replica).collect();
        replicas.iter().for_each(|replica| replica.start());
        let of_member = replicas.iter().cloned().map(|replica| replica as Arc<dyn Replica>);
        let member = Arc::new(Member::new("alto", of_member, hedge_share));
        let patience =
            Patience { step: STEP, token: Duration::ZERO, silence: SILENCE, silence_of_all: SILENCE_OF_ALL };
        let plan = PlanKind::Dense;
        let all =
            SessionTerms { patience, plan, snapshot_tokens: SNAPSHOT_TOKENS, ..SessionTerms::of_tests() };
        let session = MemberSession::new(&member, terms(all), None);
        Self { replicas, member, transcript: Transcript::new(vocabulary.fingerprint()), session }
    }

    /// Appends tokens and asks what follows; the answer is that of the model, to the bit, wherever it came from.
    async fn step(&mut self, tokens: &[u32]) -> Result<(), ReplicaError> {
        self.ask(tokens, Ask::next_row(RowFormat::F32)).await
    }

    async fn ask(&mut self, tokens: &[u32], ask: Ask) -> Result<(), ReplicaError> {
        let start = self.transcript.len();
        let end = self.transcript.extend(tokens);
        let answer = self.session.advance(&self.transcript, start..end, ask.clone()).await?;
        let read = self.transcript.part(0..end);
        let expected: Answer = self.replicas[0].model.answer(&ask, &read, tokens.len());
        assert_eq!(answer, expected);
        Ok(())
    }

    /// The replica that has the session, and the other one.
    fn here_and_there(&self) -> (Arc<ScriptedReplica>, Arc<ScriptedReplica>) {
        let [first, second] = <[_; 2]>::try_from(self.replicas.clone()).unwrap_or_else(|_| panic!("two"));
        let is_first = self.member.seats()[0].sessions.load(Relaxed) == 1;
        if is_first { (first, second) } else { (second, first) }
    }

    /// Takeovers, tokens that were read again, hedges, hedges that won.
    fn counts(&self) -> [u64; 4] {
        let counts = &self.member.counts;
        [&counts.takeovers, &counts.recomputed_tokens, &counts.hedges, &counts.hedges_won]
            .map(|count| count.get())
    }
}

#[tokio::test(start_paused = true)]
async fn another_replica_goes_on_from_the_last_snapshot() {
    let mut stage = Stage::new();
    // A snapshot at the end of the prompt, after 10 tokens, and one after every 4 more.
    stage.step(&[1, 2, 3, 4, 5, 6, 7, 0, 1, 2]).await.unwrap();
    for token in [3, 4, 5, 6, 7, 0] {
        stage.step(&[token]).await.unwrap();
    }
    let (here, there) = stage.here_and_there();
    here.follow(|_| Act::Die);
    stage.step(&[1]).await.unwrap();
    assert_eq!(there.feeds(), [3], "two since the snapshot at 14, and the one that failed");
    assert_eq!(stage.counts(), [1, 2, 0, 0]);
    stage.step(&[2]).await.unwrap();
    assert_eq!(stage.counts(), [1, 2, 0, 0], "it stays there");
}

/// Its numbers would be those of another text.
#[tokio::test(start_paused = true)]
async fn whoever_is_ahead_of_the_session_does_not_answer() {
    let mut stage = Stage::of(1);
    let ahead = snapshot(7, &[1, 2, 3, 4, 5]);
    stage.session = MemberSession::new(&stage.member, SessionTerms::of_tests(), Some(ahead));
    let error = stage.step(&[1, 2, 3]).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        ReplicaError::Lost { reason: "it is ahead of the session".to_owned() }.to_string()
    );
    assert!(stage.replicas[0].feeds().is_empty(), "nothing is read");
    // With the tokens that are in the state it goes on.
    stage.step(&[4, 5]).await.unwrap();
    stage.step(&[6]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_over_is_not_read_again() {
    let mut stage = Stage::new();
    stage.step(&[1, 2, 3]).await.unwrap();
    for token in [4, 5] {
        stage.step(&[token]).await.unwrap();
    }
    let (here, there) = stage.here_and_there();
    here.follow(|_| Act::Leave);
    stage.step(&[6]).await.unwrap();
    assert_eq!(there.feeds(), [1]);
    assert_eq!(stage.counts(), [1, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_question_about_each_token_is_about_those_of_its_step_wherever_the_reading_begins() {
    let mut stage = Stage::new();
    let each = Plan::reference().each();
    stage.ask(&[1, 2, 3], each.clone()).await.unwrap();
    stage.ask(&[4], each.clone()).await.unwrap();
    let (here, there) = stage.here_and_there();
    here.follow(|_| Act::Die);
    stage.ask(&[5, 6], each).await.unwrap();
    assert_eq!(there.feeds(), [1, 2], "what came before the step, then the step");
}

#[tokio::test(start_paused = true)]
async fn a_prompt_whose_first_feed_fails_is_read_elsewhere_and_that_is_no_takeover() {
    let mut stage = Stage::new();
    stage.replicas[0].follow(|_| Act::Die);
    stage.step(&[1, 2]).await.unwrap();
    assert_eq!(stage.counts(), [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_silent_is_not_waited_for() {
    let mut stage = Stage::new();
    stage.step(&[1, 2]).await.unwrap();
    let (here, there) = stage.here_and_there();
    here.follow(|_| Act::Hang);
    here.is_silent_for(SILENCE);
    let start = Instant::now();
    stage.step(&[3]).await.unwrap();
    assert_eq!(start.elapsed(), SILENCE / 4, "since it was silent before");
    assert_eq!((here.late_feeds(), there.feeds()), (0, vec![1]));
    assert_eq!(stage.counts(), [0, 0, 1, 1]);
    assert_eq!(stage.here_and_there().0.address(), there.address(), "it stays with whom answered");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_answers_others_is_waited_for() {
    let mut stage = Stage::new();
    stage.step(&[1, 2]).await.unwrap();
    let (here, there) = stage.here_and_there();
    here.follow(|_| Act::AnswerAfter(4 * SILENCE));
    here.is_silent_for(MILLISECOND);
    let start = Instant::now();
    stage.step(&[3]).await.unwrap();
    assert_eq!(start.elapsed(), 4 * SILENCE);
    assert_eq!((here.late_feeds(), there.feeds().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_answers_others_and_not_this_is_waited_for_half_of_the_time() {
    let mut stage = Stage::new();
    stage.step(&[1, 2]).await.unwrap();
    let (here, there) = stage.here_and_there();
    here.follow(|_| Act::Hang);
    here.is_silent_for(MILLISECOND);
    let start = Instant::now();
    stage.step(&[3]).await.unwrap();
    let elapsed = start.elapsed();
    assert!((STEP / 2..STEP / 2 + SILENCE).contains(&elapsed), "{elapsed:?}");
    assert_eq!(there.feeds(), [1]);
}

#[tokio::test(start_paused = true)]
async fn one_replica_after_the_other_is_asked_while_none_answers() {
    let mut stage = Stage::of(3);
    stage.step(&[1, 2]).await.unwrap();
    let seats = stage.member.seats();
    let here = seats.iter().position(|seat| seat.sessions.load(Relaxed) == 1).unwrap();
    let mut others: Vec<usize> = (0..3).filter(|place| *place != here).collect();
    stage.replicas[here].follow(|_| Act::Hang);
    stage.replicas[here].is_silent_for(SILENCE);
    // Chance decides who is next: the first of them that is asked hangs, too.
    let hung = Arc::new(AtomicUsize::new(0));
    for place in &others {
        let (hung, replica) = (Arc::clone(&hung), Arc::clone(&stage.replicas[*place]));
        stage.replicas[*place].follow(move |_| {
            if hung.fetch_add(1, Relaxed) > 0 {
                return Act::Answer;
            }
            replica.is_silent_for(SILENCE);
            Act::Hang
        });
    }
    let start = Instant::now();
    stage.step(&[3]).await.unwrap();
    assert_eq!(start.elapsed(), SILENCE / 2, "a quarter for each of two");
    assert_eq!(stage.counts(), [0, 0, 2, 1]);
    others.retain(|place| stage.replicas[*place].feeds() == [1]);
    assert_eq!(others.len(), 1, "one of them answered");
}

#[tokio::test(start_paused = true)]
async fn the_last_replica_has_the_whole_time_of_a_step() {
    let mut stage = Stage::new();
    stage.step(&[1, 2]).await.unwrap();
    let (here, there) = stage.here_and_there();
    there.die();
    here.follow(|_| Act::Hang);
    here.is_silent_for(SILENCE);
    let start = Instant::now();
    let error = stage.step(&[3]).await.unwrap_err();
    assert_eq!(error, ReplicaError::Late { milliseconds: STEP.as_millis() });
    assert_eq!((start.elapsed(), here.late_feeds()), (STEP, 1));
}

#[tokio::test(start_paused = true)]
async fn a_member_of_which_nothing_is_heard_is_not_waited_for_where_it_may_be_missing() {
    for (may_be_missing, expected, takes) in [
        (true, ReplicaError::Silent { milliseconds: 1000 }, SILENCE_OF_ALL),
        (false, ReplicaError::Late { milliseconds: 5000 }, STEP),
    ] {
        let terms = |terms: SessionTerms| terms.allowing_degraded(may_be_missing);
        let mut stage = Stage::of_as(1, terms, 0.0);
        stage.step(&[1, 2]).await.unwrap();
        stage.replicas[0].follow(|_| Act::Hang);
        stage.replicas[0].is_silent_for(SILENCE_OF_ALL);
        let start = Instant::now();
        assert_eq!(stage.step(&[3]).await.unwrap_err(), expected);
        assert_eq!((start.elapsed(), stage.replicas[0].late_feeds()), (takes, usize::from(!may_be_missing)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_is_heard_of_as_long_as_one_of_its_replicas_is() {
    let mut stage = Stage::new();
    stage.step(&[1, 2]).await.unwrap();
    for replica in &stage.replicas {
        replica.follow(|_| Act::Hang);
    }
    let (here, there) = stage.here_and_there();
    here.is_silent_for(SILENCE_OF_ALL);
    there.is_silent_for(SILENCE);
    assert_eq!(stage.step(&[3]).await.unwrap_err(), ReplicaError::Late { milliseconds: 5000 });
}

/// So many answers that it is known how long one takes.
async fn warm_up(stage: &mut Stage) {
    for replica in &stage.replicas {
        replica.follow(|_| Act::AnswerAfter(10 * MILLISECOND));
    }
    for token in 0..600 {
        stage.step(&[token % 8]).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_takes_longer_than_usual_is_asked_of_another_replica_too() {
    let mut stage = Stage::with(|terms| terms, 0.05);
    warm_up(&mut stage).await;
    let (here, there) = stage.here_and_there();
    let slow = || |_| Act::AnswerAfter(100 * MILLISECOND);
    here.follow(slow());
    let start = Instant::now();
    stage.step(&[3]).await.unwrap();
    let elapsed = start.elapsed();
    assert!((20 * MILLISECOND..23 * MILLISECOND).contains(&elapsed), "{elapsed:?}");
    assert_eq!((stage.counts()[2..].to_vec(), here.late_feeds()), (vec![1, 1], 0), "nobody is at fault");
    assert_eq!(stage.here_and_there().0.address(), there.address());

    // The first one may well be first.
    there.follow(|_| Act::AnswerAfter(15 * MILLISECOND));
    stage.step(&[3]).await.unwrap();
    assert_eq!(stage.counts()[2..], [2, 1]);
    assert_eq!(stage.here_and_there().0.address(), there.address());
    here.until_idle().await;
}

#[tokio::test(start_paused = true)]
async fn hedges_have_a_budget() {
    let mut stage = Stage::with(|terms| terms, 0.01);
    warm_up(&mut stage).await;
    for replica in &stage.replicas {
        replica.follow(|_| Act::AnswerAfter(30 * MILLISECOND));
    }
    for token in 0..100 {
        stage.step(&[token % 8]).await.unwrap();
    }
    let [_, _, hedges, _] = stage.counts();
    // One in a hundred feeds, and one a second.
    assert!((5..25).contains(&hedges), "{hedges}");
}

#[tokio::test(start_paused = true)]
async fn a_full_replica_is_not_the_end_and_a_refusal_is_once_another_one_refuses_too() {
    let mut stage = Stage::new();
    stage.step(&[1, 2]).await.unwrap();
    let (here, there) = stage.here_and_there();
    here.follow(|_| Act::Fail(ReplicaError::Exhausted { message: "full".to_owned() }));
    stage.step(&[3]).await.unwrap();
    here.follow(|_| Act::Answer);
    let refusal = ReplicaError::Refused { message: "token 4 is not for me".to_owned() };
    let refuses = |refusal: &ReplicaError| {
        let refusal = refusal.clone();
        move |_| Act::Fail(refusal.clone())
    };
    there.follow(refuses(&refusal));
    stage.step(&[4]).await.unwrap();
    here.follow(refuses(&refusal));
    assert_eq!(stage.step(&[4]).await.unwrap_err(), refusal);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_beside_another_failure_is_not_the_callers_mistake() {
    let refusal = ReplicaError::Refused { message: "token 3 is not for me".to_owned() };
    let not_finite = ReplicaError::NotFinite { what: "token 3".to_owned() };
    for (here_fails, there_fails) in [(&refusal, &not_finite), (&not_finite, &refusal)] {
        let mut stage = Stage::new();
        stage.step(&[1, 2]).await.unwrap();
        let (here, there) = stage.here_and_there();
        for (replica, failure) in [(here, here_fails.clone()), (there, there_fails.clone())] {
            replica.follow(move |_| Act::Fail(failure.clone()));
        }
        assert_eq!(stage.step(&[3]).await.unwrap_err(), not_finite);
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_refused_is_not_the_end() {
    let mut stage = Stage::new();
    stage.step(&[1, 2, 3, 4, 5]).await.unwrap();
    let (here, there) = stage.here_and_there();
    let mut has_refused = false;
    there.follow(move |_| {
        if std::mem::replace(&mut has_refused, true) {
            return Act::Answer;
        }
        Act::Fail(ReplicaError::Refused { message: "open.snapshot.model_fingerprint".to_owned() })
    });
    here.follow(|_| Act::Die);
    stage.step(&[6]).await.unwrap();
    assert_eq!(there.histories().last().unwrap(), &[1, 2, 3, 4, 5, 6], "from the beginning");
    assert_eq!(there.feeds(), [4, 2]);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_the_first_failure_is_the_reason() {
    let mut stage = Stage::new();
    stage.step(&[1, 2]).await.unwrap();
    let (here, there) = stage.here_and_there();
    here.follow(|_| Act::Fail(ReplicaError::NotFinite { what: "token 3".to_owned() }));
    there.follow(|_| Act::Die);
    let error = stage.step(&[3]).await.unwrap_err();
    assert_eq!(error, ReplicaError::NotFinite { what: "token 3".to_owned() });
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_of_use_until_the_step_or_the_caller_s_time_is_over() {
    let mut stage = Stage::with(|terms| terms, 0.0);
    stage.step(&[1]).await.unwrap();
    assert_eq!(stage.here_and_there().0.timeouts(), [STEP]);
    let soon = Instant::now() + 70 * MILLISECOND;
    let mut stage = Stage::with(|terms| SessionTerms { deadline: Some(soon), ..terms }, 0.0);
    stage.step(&[1]).await.unwrap();
    assert_eq!(stage.here_and_there().0.timeouts(), [70 * MILLISECOND]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_dropped_is_closed_wherever_it_is_open() {
    let mut stage = Stage::with(|terms| terms, 0.05);
    warm_up(&mut stage).await;
    for replica in &stage.replicas {
        replica.follow(|_| Act::Hang);
    }
    // Dropped while both are asked.
    assert!(tokio::time::timeout(100 * MILLISECOND, stage.step(&[1])).await.is_err());
    let Stage { replicas, session, member, .. } = stage;
    drop(session);
    for replica in &replicas {
        replica.until_idle().await;
    }
    let open: Vec<u32> = member.seats().iter().map(|seat| seat.sessions.load(Relaxed)).collect();
    assert_eq!((open, member.sessions.load(Relaxed)), (vec![0, 0], 0));
}
