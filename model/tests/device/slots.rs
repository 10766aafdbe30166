//! States: their places, and their way from one device to another.

use super::*;

#[test]
fn a_state_is_written_once_and_its_place_is_free_when_it_is_gone() {
    let device = device(config(), Precision::F32, Capacity { states: 2, ..SMALL });
    let places = 3 * 2 + 8;
    let fresh = device.fresh_state().unwrap();
    // A clone takes no place before it is fed.
    let clones: Vec<State> = vec![fresh.clone(); 100];
    let mut fed = Vec::new();
    let error = loop {
        let mut state = fresh.clone();
        match device.forward(&mut [Row { state: &mut state, tokens: &[3], want: Want::Nothing }]) {
            Ok(_) => fed.push(state),
            Err(error) => break error,
        }
    };
    assert_eq!(fed.len(), places - 1);
    assert!(matches!(error, ForwardError::NoSlot { slots } if slots == places), "{error}");
    assert_eq!(error.to_string(), "the device has room for 14 states and no more is free");
    assert!(fed.iter().all(|state| device.values(state).unwrap() == device.values(&fed[0]).unwrap()));
    assert_ne!(device.values(&fresh).unwrap(), device.values(&fed[0]).unwrap());
    fed.truncate(places - 3);
    let mut pair = [fresh.clone(), fresh.clone()];
    let [one, other] = &mut pair;
    let rows = &mut [
        Row { state: one, tokens: &[3], want: Want::Next },
        Row { state: other, tokens: &[3, 4], want: Want::Next },
    ];
    device.forward(rows).unwrap();
    assert_eq!(clones[99], fresh, "and nobody has written the place that they share");
}

#[test]
fn states_go_from_a_device_to_another_and_to_the_cpu() {
    let (cpu, one) = (model(config()), device(config(), Precision::F32, SMALL));
    let other = device(config(), Precision::F32, SMALL);
    let mut state = states(&one, 4).pop().unwrap();
    let values = one.values(&state).unwrap().into_owned();
    let logits = |model: &LanguageModel, state: &mut State| {
        model.forward(&mut [Row { state, tokens: &[1, 2], want: Want::Next }]).unwrap().remove(0).logits
    };
    let expected = logits(&one, &mut state);
    assert_eq!(logits(&other, &mut other.restore(&values).unwrap()), expected, "to the bit");
    assert!(difference(&logits(&cpu, &mut cpu.restore(&values).unwrap()), &expected) < 1e-5);
    for foreign in [&mut cpu.fresh_state().unwrap(), &mut other.fresh_state().unwrap()] {
        let error = one.forward(&mut [Row { state: foreign, tokens: &[1], want: Want::Next }]).unwrap_err();
        assert!(matches!(error, ForwardError::ForeignState), "{error}");
    }
    let error = cpu.forward(&mut [Row { state: &mut state, tokens: &[1], want: Want::Next }]).unwrap_err();
    assert!(matches!(error, ForwardError::StateSize { found: 0, .. }), "{error}");
    assert!(matches!(one.restore(&values[1..]), Err(ForwardError::StateSize { .. })));
}
