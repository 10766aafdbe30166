//! What a device can not do, in the words of its errors.

use super::*;

#[test]
fn ids_that_are_no_tokens_are_refused() {
    let device = device(config(), Precision::F32, SMALL);
    let mut state = device.fresh_state().unwrap();
    let mut refused = |ids: &[u32]| {
        let rows = &mut [Row { state: &mut state, tokens: &[1], want: Want::Next }];
        device
            .answer(rows, &[Reduction::Ids(ids)], &mut Room::default(), &mut |_| panic!())
            .unwrap_err()
            .to_string()
    };
    assert_eq!(refused(&[3, 11]), "token 11 of row 0 is not in the vocabulary, whose largest id is 10");
    assert!(refused(&[3; 12]).starts_with("row 0 asks for the logits of 12 tokens, allowed are at most 11"));
}

#[test]
fn what_a_device_has_no_kernels_for_is_refused() {
    let on_device = |parts, precision| {
        LanguageModel::on_device(parts, &target(), precision, SMALL).unwrap_err().to_string()
    };
    let error = on_device(parts(config()), Precision::Int8);
    assert!(
        error.starts_with("precision int8 is for the CPU; allowed here are f32, bf16 and f16"),
        "{error}"
    );
    let error =
        LanguageModel::from_parts(parts(config()), &Device::Cpu, Precision::Bf16).unwrap_err().to_string();
    assert!(
        error.starts_with("precision bf16 is for CUDA devices; allowed on cpu are f32 and int8"),
        "{error}"
    );
}

#[test]
fn what_does_not_fit_into_the_memory_is_refused_with_the_numbers() {
    let capacity = Capacity { states: 1 << 29, ..SMALL };
    let error = LanguageModel::on_device(parts(config()), &target(), Precision::F32, capacity)
        .unwrap_err()
        .to_string();
    // A state of two layers of 9 units, each filled up to 16 numbers, three times, and a few more.
    assert!(
        error.starts_with(
            "it takes 393217 MiB (weights 1, states 393217, workspace 1) of the device's memory, "
        ),
        "{error}"
    );
    assert!(error.contains("MiB are free: fewer sessions, smaller batches or bf16 take less"), "{error}");
    let device = device(config(), Precision::F32, SMALL);
    let memory = device.device_memory().unwrap();
    assert_eq!(memory.states, (3 * 24 + 8) * 2 * 2 * 16 * 4);
    assert!(memory.weights == device.weight_bytes() && memory.total() < 1 << 20, "{memory}");
    assert_eq!(model(config()).device_memory(), None);
}
