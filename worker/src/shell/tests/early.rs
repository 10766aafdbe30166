//! Turns that compute early: when, and what comes before.

use super::*;

#[test]
fn what_can_be_computed_early_is_computed_in_turns_that_find_nothing_else() {
    let mut probed = Probed::every(None);
    probed.manners.set_early(2);
    let idle = |turn, is_left| {
        assert!(matches!(turn, Turn::Idle { has_early_work, .. } if has_early_work == is_left), "{turn:?}");
    };
    probed.ask([(1, Operation::Open(Origin::Start)), (1, feed(1))]);
    idle(probed.turn(TurnOn::LentThread), true);
    assert_eq!(probed.answers(), [(1, 1, None)], "it waits for nothing");
    assert_eq!(probed.manners.told(), [Told::Forward(1)]);
    idle(probed.turn(TurnOn::LentThread), true);
    assert_eq!(probed.manners.told(), [Told::Early]);
    probed.ask([(1, Operation::Feed(Feed::new(1, vec![2], Ask::Nothing)))]);
    idle(probed.turn(TurnOn::LentThread), true);
    let refused = (1, 1, Some(ErrorCode::InvalidArgument));
    assert_eq!(
        (probed.answers(), probed.manners.told()),
        (vec![refused], vec![]),
        "that has to get out first"
    );
    probed.ask([(1, feed(2))]);
    idle(probed.turn(TurnOn::OwnThread), true);
    assert_eq!((probed.answers(), probed.manners.told()), (vec![(1, 2, None)], vec![Told::Forward(2)]));
    idle(probed.turn(TurnOn::OwnThread), true);
    idle(probed.turn(TurnOn::OwnThread), false);
    idle(probed.turn(TurnOn::OwnThread), false);
    assert_eq!(probed.manners.told(), [Told::Early, Told::Early]);
}

#[test]
fn nobody_is_the_worse_for_what_fails_early() {
    for manner in [Manner::Error, Manner::Panic] {
        let mut probed = Probed::every(None);
        probed.manners.set_early(2);
        probed.ask([(1, Operation::Open(Origin::Start)), (1, feed(1))]);
        probed.turn(TurnOn::OwnThread);
        probed.manners.set(manner);
        let turn = probed.turn(TurnOn::OwnThread);
        assert!(matches!(turn, Turn::Idle { has_early_work: false, .. }), "{manner:?}: {turn:?}");
        probed.manners.set(Manner::Right);
        probed.ask([(1, feed(2))]);
        probed.turn(TurnOn::OwnThread);
        assert_eq!(probed.answers(), [(1, 1, None), (1, 2, None)]);
    }
}

/// Else a model would seem to be quicker, and take larger batches, than where nothing was computed early.
#[test]
fn what_was_computed_early_counts_as_the_next_forward_s() {
    const TAKES: Duration = Duration::from_millis(20);
    let mut probed = Probed::every(None);
    probed.manners.set_early(1);
    probed.ask([(1, Operation::Open(Origin::Start)), (1, feed(1))]);
    probed.turn(TurnOn::OwnThread);
    probed.manners.set(Manner::SlowEarly(TAKES));
    probed.turn(TurnOn::OwnThread);
    probed.manners.set_early(0);
    let mut took = |step| {
        probed.ask([(1, feed(step))]);
        probed.turn(TurnOn::OwnThread);
        probed.shell.last_forward().unwrap()
    };
    assert!(took(2) >= TAKES);
    let quickest = (3..20).map(took).min().unwrap();
    assert!(quickest < TAKES, "nothing of those was computed early: {quickest:?}");
}
