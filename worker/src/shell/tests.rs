//! Turns of the model with a scripted device: what is taken in, computed, probed and delivered, in which order.
#![allow(clippy::unwrap_used)]

use chorus_proto::v1::{ErrorCode, answer::Answer as Kind};

use super::*;
use crate::{
    batcher::BatchLimits,
    operation::{Ask, Feed, Origin, Rows},
    scripted_device::{Manner, Manners, ScriptedDevice, Told},
};

mod early;

fn shell() -> (Shell<ScriptedDevice>, mpsc::Sender<Command>, Manners, Board) {
    let (device, manners) = ScriptedDevice::new();
    let engine = Engine::new(device, String::new(), 8, Duration::from_secs(60), BatchLimits::default());
    let (commands, inbox) = mpsc::channel(256);
    let board = Board::default();
    (Shell::new(engine, inbox, board.clone()), commands, manners, board)
}

fn admitted(operation: Operation) -> Admitted {
    Admitted { session: 1, operation, credit: Credit::default() }
}

/// A stream of operations that need no model, faster than they can be taken, does not hold up a feed.
#[test]
fn a_round_ends_however_many_operations_wait() {
    let (mut shell, commands, ..) = shell();
    let (replies, mut receiver) = mpsc::unbounded_channel();
    let command = |operations| Command::Operations {
        stream: 1,
        operations,
        replies: replies.clone(),
        span: Span::none(),
        read: Instant::now(),
    };
    let flood = || (0..1000).map(|_| admitted(Operation::Close { discard: false })).collect();
    let feed = Operation::Feed(Feed::new(1, vec![0], Ask::Nothing));
    commands.try_send(command(vec![admitted(Operation::Open(Origin::Start)), admitted(feed)])).unwrap();
    (0..100).for_each(|_| commands.try_send(command(flood())).unwrap());
    assert_eq!(shell.turn(TurnOn::OwnThread, Instant::now()), Turn::More);
    assert!(shell.inbox.len() >= 90, "most of the flood waits for the next turns");
    let delivered = receiver.try_recv().unwrap().unwrap();
    assert!(matches!(delivered, Delivery::Answers(replies) if replies.len() == 1), "the feed is answered");
    assert!(shell.last_forward().is_some());
}

#[test]
fn a_turn_says_when_the_next_one_is_due() {
    let (mut shell, commands, ..) = shell();
    assert_eq!(
        shell.turn(TurnOn::OwnThread, Instant::now()),
        Turn::Idle { due: None, has_early_work: false }
    );
    let (replies, _receiver) = mpsc::unbounded_channel();
    let operations = vec![admitted(Operation::Open(Origin::Start))];
    let command =
        Command::Operations { stream: 1, operations, replies, span: Span::none(), read: Instant::now() };
    commands.try_send(command).unwrap();
    assert!(matches!(shell.turn(TurnOn::OwnThread, Instant::now()), Turn::Idle { due: Some(_), .. }));
    commands.try_send(Command::Stop).unwrap();
    assert_eq!(
        [shell.turn(TurnOn::OwnThread, Instant::now()), shell.turn(TurnOn::OwnThread, Instant::now())],
        [Turn::Over; 2],
        "it stays over"
    );
}

/// A shell whose device is probed so often, with one stream on which things are asked.
struct Probed {
    shell: Shell<ScriptedDevice>,
    commands: mpsc::Sender<Command>,
    manners: Manners,
    board: Board,
    replies: ReplySender,
    receiver: mpsc::UnboundedReceiver<Result<Delivery, Status>>,
    now: Instant,
}

impl Probed {
    fn every(interval: Option<Duration>) -> Self {
        let (mut shell, commands, manners, board) = shell();
        let now = Instant::now();
        shell.engine = shell.engine.probed(ScriptedDevice::golden(), interval, now);
        let (replies, receiver) = mpsc::unbounded_channel();
        Self { shell, commands, manners, board, replies, receiver, now }
    }

    fn turn(&mut self, on: TurnOn) -> Turn {
        self.shell.turn(on, self.now)
    }

    fn ask(&self, operations: impl IntoIterator<Item = (u64, Operation)>) {
        let admit = |(session, operation)| Admitted { session, operation, credit: Credit::default() };
        let operations = operations.into_iter().map(admit).collect();
        let (replies, span, read) = (self.replies.clone(), Span::none(), self.now);
        let command = Command::Operations { stream: 1, operations, replies, span, read };
        self.commands.try_send(command).unwrap();
    }

    /// Session, step, and the code of the failure if it is one, of every answer that has come.
    fn answers(&mut self) -> Vec<(u64, u64, Option<ErrorCode>)> {
        let mut all = vec![];
        while let Ok(delivery) = self.receiver.try_recv() {
            let Delivery::Answers(replies) = delivery.unwrap() else { panic!("nobody stops") };
            all.extend(replies.into_iter().map(|Reply { answer, .. }| {
                let code = match answer.answer {
                    Some(Kind::Failure(failure)) => Some(failure.code()),
                    _ => None,
                };
                (answer.session, answer.step, code)
            }));
        }
        all
    }

    /// Takes turns until the device is sound again, each when it is due.
    fn until_sound(&mut self) {
        while self.board.reason().is_some() {
            let Turn::Idle { due, .. } = self.turn(TurnOn::OwnThread) else {
                panic!("there is nothing to compute");
            };
            let due = due.or(self.board.reason().is_none().then_some(self.now));
            let due = due.expect("a device that is not sound is looked at again");
            self.now = self.now.max(due);
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(10);

fn feed(step: u64) -> Operation {
    let ask = Ask::Logits { rows: Rows::Next, format: v1::RowFormat::F32 };
    Operation::Feed(Feed::new(step, vec![1], ask))
}

#[test]
fn a_device_that_nobody_asks_is_probed_when_it_is_due_and_only_on_the_models_own_thread() {
    let mut probed = Probed::every(Some(INTERVAL));
    let due = probed.now + INTERVAL;
    assert_eq!(probed.turn(TurnOn::OwnThread), Turn::Idle { due: Some(due), has_early_work: false });
    probed.now = due;
    assert_eq!(probed.turn(TurnOn::LentThread), Turn::Idle { due: Some(due), has_early_work: false });
    assert_eq!(probed.manners.forwards(), 0);
    assert_eq!(
        probed.turn(TurnOn::OwnThread),
        Turn::Idle { due: Some(due + INTERVAL), has_early_work: false }
    );
    assert_eq!(probed.manners.forwards(), 1);
    assert_eq!(probed.shell.last_forward(), None, "what a probe takes says nothing about sessions");
}

#[test]
fn a_wrong_device_is_out_with_the_reason_and_its_sessions_end() {
    for manner in [
        Manner::NotFinite,
        Manner::Off { position: 1, token: 3, by: 1e-4 },
        Manner::Error,
        Manner::Panic,
        Manner::Mute,
    ] {
        let mut probed = Probed::every(Some(INTERVAL));
        probed.ask([(1, Operation::Open(Origin::Start)), (2, Operation::Open(Origin::Start)), (1, feed(1))]);
        probed.turn(TurnOn::OwnThread);
        assert_eq!(probed.answers(), [(1, 1, None)]);
        probed.manners.set(manner);
        probed.now += INTERVAL;
        probed.ask([(1, feed(2)), (2, feed(1)), (2, feed(2)), (3, Operation::Open(Origin::Start))]);
        probed.turn(TurnOn::OwnThread);
        let gone = |session, step| (session, step, Some(ErrorCode::Unavailable));
        assert_eq!(probed.answers(), [gone(1, 2), gone(2, 1), gone(2, 2)], "{manner:?}");
        let reason = probed.board.reason().unwrap();
        assert!(reason.contains("golden sequence"), "{reason}");
        probed.ask([
            (3, feed(1)),
            (4, Operation::Open(Origin::Start)),
            (4, Operation::Close { discard: true }),
        ]);
        probed.turn(TurnOn::LentThread);
        assert_eq!(probed.answers(), [gone(3, 1), gone(4, 0)]);
    }
}

#[test]
fn a_device_that_computes_again_is_back_without_its_sessions() {
    let mut probed = Probed::every(None);
    probed.ask([(1, Operation::Open(Origin::Start)), (1, feed(1))]);
    probed.turn(TurnOn::OwnThread);
    probed.manners.set(Manner::NotFinite);
    probed.ask([(1, feed(2))]);
    probed.turn(TurnOn::OwnThread);
    assert_eq!(probed.answers()[1..], [(1, 2, Some(ErrorCode::NotFinite))]);
    assert_eq!(probed.board.reason(), None, "the next turn's probe tells");
    probed.turn(TurnOn::OwnThread);
    assert!(probed.board.reason().is_some());
    probed.manners.set(Manner::Right);
    let before = probed.manners.forwards();
    probed.until_sound();
    assert_eq!(probed.manners.forwards() - before, 2, "it has to pass twice");
    probed.ask([(1, feed(3)), (2, Operation::Open(Origin::Start)), (2, feed(1))]);
    probed.turn(TurnOn::OwnThread);
    assert_eq!(probed.answers(), [(1, 3, Some(ErrorCode::UnknownSession)), (2, 1, None)]);
}

#[test]
fn an_input_that_a_sound_device_can_not_take_fails_its_session_only() {
    let mut probed = Probed::every(None);
    probed.ask([(1, Operation::Open(Origin::Start)), (2, Operation::Open(Origin::Start)), (1, feed(1))]);
    probed.manners.set(Manner::NotFinite);
    probed.turn(TurnOn::OwnThread);
    probed.manners.set(Manner::Right);
    assert!(matches!(probed.turn(TurnOn::OwnThread), Turn::Idle { .. }));
    assert_eq!((probed.manners.forwards(), probed.board.reason()), (2, None));
    probed.ask([(2, feed(1))]);
    probed.turn(TurnOn::OwnThread);
    assert_eq!(probed.answers(), [(1, 1, Some(ErrorCode::NotFinite)), (2, 1, None)]);
}

#[test]
fn callers_mistakes_never_count_against_a_device() {
    let mut probed = Probed::every(None);
    let torn = v1::Snapshot { checksum: 1, ..v1::Snapshot::default() };
    probed.ask([
        (1, feed(1)),
        (2, Operation::Open(Origin::Snapshot(Box::new(torn)))),
        (3, Operation::Open(Origin::Start)),
        (3, feed(9)),
    ]);
    assert!(matches!(probed.turn(TurnOn::OwnThread), Turn::Idle { .. }));
    assert_eq!(probed.answers().len(), 3);
    probed.turn(TurnOn::OwnThread);
    assert_eq!((probed.manners.forwards(), probed.board.reason()), (0, None), "not even a probe");
}

#[test]
fn what_is_found_from_outside_ends_all_sessions_too_and_a_probe_brings_the_device_back() {
    let mut probed = Probed::every(None);
    probed.ask([(1, Operation::Open(Origin::Start))]);
    probed.turn(TurnOn::OwnThread);
    assert!(probed.board.condemn("stuck"));
    probed.ask([(1, feed(1))]);
    probed.turn(TurnOn::LentThread);
    assert_eq!(probed.answers(), [(1, 1, Some(ErrorCode::Unavailable))]);
    assert_eq!(probed.board.reason().as_deref(), Some("stuck"));
    probed.until_sound();
    assert_eq!(probed.manners.forwards(), 2);
}

/// With a device that computes in halves, forwards of one token each, and two sessions.
fn in_halves() -> Probed {
    in_halves_probed(None)
}

fn in_halves_probed(interval: Option<Duration>) -> Probed {
    let mut probed = Probed::every(interval);
    let (device, manners) = ScriptedDevice::in_halves();
    let limits = BatchLimits { chunk_tokens: 1, tokens: 1, ..BatchLimits::default() };
    probed.shell.engine = Engine::new(device, String::new(), 8, Duration::from_secs(60), limits).probed(
        ScriptedDevice::golden(),
        interval,
        probed.now,
    );
    probed.manners = manners;
    probed.ask([(1, Operation::Open(Origin::Start)), (2, Operation::Open(Origin::Start))]);
    probed
}

#[test]
fn who_asks_alone_is_answered_in_the_same_turn() {
    let mut probed = in_halves();
    probed.ask([(1, feed(1))]);
    assert!(matches!(probed.turn(TurnOn::LentThread), Turn::Idle { .. }));
    assert_eq!(probed.answers(), [(1, 1, None)]);
    assert_eq!(probed.manners.told(), [Told::Submit(1), Told::Wait, Told::Collect(1)]);
    assert!(probed.shell.last_forward().is_some());
}

#[test]
fn a_device_has_its_next_batch_before_what_it_found_is_taken_in() {
    let mut probed = in_halves();
    probed.ask([(1, feed(1)), (2, feed(1))]);
    assert_eq!(probed.turn(TurnOn::OwnThread), Turn::More);
    assert_eq!(probed.answers(), []);
    assert_eq!(probed.manners.told(), [Told::Submit(1), Told::Wait]);
    assert!(matches!(probed.turn(TurnOn::OwnThread), Turn::Idle { .. }));
    assert_eq!(probed.answers(), [(1, 1, None), (2, 1, None)]);
    let told = [Told::Submit(2), Told::Collect(1), Told::Wait, Told::Collect(2)];
    assert_eq!(probed.manners.told(), told);
}

/// A probe, and a batch that does not go in halves.
#[test]
fn what_a_device_found_is_delivered_before_it_computes_anything_as_a_whole() {
    let mut probed = in_halves_probed(Some(INTERVAL));
    probed.ask([(1, feed(1)), (2, feed(1))]);
    probed.turn(TurnOn::OwnThread);
    probed.now += INTERVAL;
    probed.manners.told();
    probed.turn(TurnOn::OwnThread);
    assert_eq!(probed.manners.told()[..2], [Told::Collect(1), Told::Forward(2)]);
    assert!(
        matches!(probed.receiver.try_recv(), Ok(Ok(Delivery::Answers(replies))) if replies.len() == 1),
        "by itself"
    );
    assert_eq!(probed.answers(), [(2, 1, None)]);

    let mut probed = in_halves();
    probed.shell.engine = {
        let (device, manners) = ScriptedDevice::in_halves();
        probed.manners = manners;
        Engine::new(device, String::new(), 8, Duration::from_secs(60), BatchLimits::default())
    };
    probed.ask([(1, feed(1))]);
    assert!(probed.shell.take_round(probed.now).is_continue());
    assert_eq!(probed.shell.begin(probed.now), Begun::UnderWay { tokens: 1 });
    probed.ask([(2, Operation::Feed(Feed::new(1, vec![1, 2, 3], Ask::Nothing)))]);
    assert!(matches!(probed.turn(TurnOn::OwnThread), Turn::Idle { .. }));
    assert_eq!(probed.manners.told(), [Told::Submit(1), Told::Collect(1), Told::Forward(2)]);
    assert!(matches!(probed.receiver.try_recv(), Ok(Ok(Delivery::Answers(replies))) if replies.len() == 1));
    assert_eq!(probed.answers(), [(2, 1, None)]);
}

/// Texts that are fed in chunks come together, however far they were apart.
#[test]
fn who_goes_on_is_in_the_next_forward_beside_all_others() {
    let mut probed = in_halves();
    let (device, manners) = ScriptedDevice::in_halves();
    let limits = BatchLimits { chunk_tokens: 1, tokens: 2, ..BatchLimits::default() };
    probed.shell.engine = Engine::new(device, String::new(), 8, Duration::from_secs(60), limits);
    probed.manners = manners;
    let text = || Operation::Feed(Feed::new(1, vec![1; 6], Ask::Nothing));
    probed.ask([(1, text())]);
    assert!(probed.shell.take_round(probed.now).is_continue());
    assert_eq!(probed.shell.begin(probed.now), Begun::UnderWay { tokens: 1 });
    probed.ask([(2, text())]);
    while probed.turn(TurnOn::OwnThread) == Turn::More {}
    assert_eq!(probed.answers(), [(1, 1, None), (2, 1, None)]);
    assert_eq!(probed.manners.forwards(), 1 + 6);
}

/// A turn on a connection's thread leaves nothing for later that is computed.
#[test]
fn a_lent_thread_delivers_before_it_goes() {
    let mut probed = in_halves();
    probed.ask([(1, feed(1)), (2, feed(1))]);
    assert_eq!(probed.turn(TurnOn::LentThread), Turn::More);
    assert_eq!(probed.answers(), [(1, 1, None)]);
}

#[test]
fn what_is_computed_when_a_worker_stops_is_answered() {
    let mut probed = in_halves();
    probed.ask([(1, feed(1)), (2, feed(1))]);
    probed.turn(TurnOn::OwnThread);
    probed.commands.try_send(Command::Stop).unwrap();
    assert_eq!(probed.turn(TurnOn::OwnThread), Turn::Over);
    assert_eq!(probed.answers(), [(1, 1, None)]);
}

/// What it has found beside something that went wrong is answered when a probe has told whether it can be relied on.
#[test]
fn a_device_that_fails_in_the_second_half_is_probed_before_it_answers_anything_else() {
    for manner in [Manner::Error, Manner::Panic, Manner::Mute, Manner::NotFinite] {
        for is_sound in [true, false] {
            let mut probed = in_halves();
            probed.ask([(1, feed(1)), (2, feed(1))]);
            probed.turn(TurnOn::OwnThread);
            // What it is told to collect next goes wrong, and nothing else.
            probed.manners.set_once(manner);
            probed.turn(TurnOn::OwnThread);
            let failed = if manner == Manner::NotFinite { ErrorCode::NotFinite } else { ErrorCode::Internal };
            assert_eq!(probed.answers(), [(1, 1, Some(failed))], "{manner:?}");
            if !is_sound {
                probed.manners.set(Manner::Off { position: 1, token: 3, by: 1e-4 });
            }
            probed.turn(TurnOn::OwnThread);
            let verdict = (!is_sound).then_some(ErrorCode::Unavailable);
            assert_eq!(probed.answers(), [(2, 1, verdict)], "{manner:?}");
            assert_eq!(probed.board.reason().is_none(), is_sound);
            probed.manners.set(Manner::Right);
            probed.until_sound();
        }
    }
}

/// Nothing is computed as a whole, and on no thread, before the probe.
#[test]
fn a_suspected_device_computes_nothing_before_its_probe() {
    let mut probed = in_halves();
    let (device, manners) = ScriptedDevice::in_halves();
    probed.shell.engine =
        Engine::new(device, String::new(), 8, Duration::from_secs(60), BatchLimits::default()).probed(
            ScriptedDevice::golden(),
            None,
            probed.now,
        );
    probed.manners = manners;
    probed.ask([(1, feed(1))]);
    assert!(probed.shell.take_round(probed.now).is_continue());
    assert_eq!(probed.shell.begin(probed.now), Begun::UnderWay { tokens: 1 });
    probed.manners.set_once(Manner::NotFinite);
    // It does not go in halves, and begins when what is under way is collected.
    probed.ask([(2, Operation::Feed(Feed::new(1, vec![1, 2, 3], Ask::Nothing)))]);
    assert_eq!(probed.turn(TurnOn::LentThread), Turn::More);
    assert_eq!(probed.turn(TurnOn::LentThread), Turn::More);
    assert_eq!(probed.manners.told(), [Told::Submit(1), Told::Collect(1)]);
    assert_eq!(probed.answers(), [(1, 1, Some(ErrorCode::NotFinite))]);
    probed.turn(TurnOn::OwnThread);
    // The golden sequence, then the text.
    assert_eq!(probed.manners.told(), [Told::Forward(2), Told::Forward(3)]);
    assert_eq!(probed.answers(), [(2, 1, None)]);
}

#[test]
fn what_is_held_for_a_probe_is_not_taken_in_on_a_lent_thread() {
    let mut probed = in_halves();
    probed.ask([(1, feed(1)), (2, feed(1))]);
    probed.turn(TurnOn::OwnThread);
    probed.manners.set_once(Manner::NotFinite);
    probed.turn(TurnOn::OwnThread);
    assert_eq!(probed.answers().len(), 1);
    assert_eq!(probed.turn(TurnOn::LentThread), Turn::More);
    assert_eq!(probed.answers(), []);
    probed.turn(TurnOn::OwnThread);
    assert_eq!(probed.answers(), [(2, 1, None)]);
}

/// A device that can't hold a state is suspected, whoever sent it.
#[test]
fn a_device_that_can_t_take_or_give_a_state_is_probed() {
    let mut probed = Probed::every(None);
    let sealed = |position| crate::snapshot::seal("", position, vec![1, 0, 0, 0].into());
    let open = |position| Operation::Open(Origin::Snapshot(Box::new(sealed(position))));
    probed.ask([(1, open(1))]);
    probed.turn(TurnOn::OwnThread);
    assert_eq!(probed.answers(), []);
    probed.manners.set(Manner::Error);
    probed.ask([(2, open(1))]);
    probed.turn(TurnOn::LentThread);
    assert_eq!(probed.answers(), [(2, 0, Some(ErrorCode::Internal))]);
    probed.turn(TurnOn::OwnThread);
    assert!(probed.board.reason().is_some_and(|reason| reason.contains("golden sequence")));
    probed.manners.set(Manner::Right);
    probed.until_sound();
    let wants_snapshot = Operation::Feed(Feed { snapshot: true, ..Feed::new(1, vec![], Ask::Nothing) });
    probed.ask([(1, Operation::Open(Origin::Start)), (1, Operation::Open(Origin::Start))]);
    probed.turn(TurnOn::OwnThread);
    probed.manners.set(Manner::Error);
    probed.ask([(1, wants_snapshot)]);
    probed.turn(TurnOn::LentThread);
    assert_eq!(probed.answers(), [(1, 1, None)], "without one");
    probed.turn(TurnOn::OwnThread);
    assert!(probed.board.reason().is_some());
}
