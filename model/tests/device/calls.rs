//! Steps, texts and calls of all sizes, held against the CPU.

use super::*;

#[test]
fn steps_of_few_and_of_many_rows_are_those_of_the_cpu() {
    for config in configs() {
        for rows in [1, 2, 5, 8, 9, 16, 17, 23] {
            let request = |row| (tokens(row, 1, config.vocab_size), WANTS[row % 2]);
            let requests: Vec<_> = (0..rows).map(request).collect();
            for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
                check(&config, precision, LARGE, &requests);
            }
        }
    }
}

/// From the third time on they are one graph, where the device has such.
#[test]
fn steps_that_are_made_again_and_again_are_those_of_the_cpu() {
    let config = Config { vocab_size: 61, ..config() };
    let parts = tame(config.clone());
    let cpu = LanguageModel::from_parts(parts.clone(), &Device::Cpu, Precision::F32).unwrap();
    let device = LanguageModel::on_device(parts, &target(), Precision::F32, LARGE).unwrap();
    for rows in [1, 3, 20] {
        let (mut own, mut others) = (states(&cpu, rows), states(&device, rows));
        let mut reductions = vec![Reduction::Top { k: 2, log_threshold: None }; rows];
        for step in 0..8 {
            // What is asked changes from step to step, and so do the slots.
            reductions[0] = if step % 2 == 0 { Reduction::Target } else { Reduction::Draw { uniform: 0.5 } };
            let request = |row| (tokens(row + 100 * step, 1, config.vocab_size), Want::Next);
            let requests: Vec<_> = (0..rows).map(request).collect();
            let expected = answers(&cpu, &mut own, &requests, &reductions);
            let found = answers(&device, &mut others, &requests, &reductions);
            for ((.., what, expected), (.., other, found)) in expected.iter().zip(&found) {
                assert_eq!(what, other, "step {step} of {rows}");
                assert!(difference(expected, found) <= 2e-5, "step {step} of {rows}");
            }
            if step == 4 {
                // A state that is kept aside is not written by the steps that follow.
                let (kept, before) = (others[0].clone(), device.values(&others[0]).unwrap().into_owned());
                answers(&device, &mut others, &requests, &reductions);
                assert_eq!(device.values(&kept).unwrap(), before);
                others[0] = kept;
                others[1..].clone_from_slice(&states_like(&cpu, &device, &own)[1..]);
            }
        }
    }
}

/// The same states on the device.
fn states_like(cpu: &LanguageModel, device: &LanguageModel, states: &[State]) -> Vec<State> {
    states.iter().map(|state| device.restore(&cpu.values(state).unwrap()).unwrap()).collect()
}

#[test]
fn texts_of_all_lengths_are_those_of_the_cpu_in_every_precision() {
    for config in configs() {
        for (index, lengths) in
            [&[3, 0, 1, 7, 0, 0, 3, 1, 12, 1][..], &[6, 2, 0, 9], &[20], &[0, 0]].iter().enumerate()
        {
            let request = |row: usize| {
                (tokens(row, lengths[row], config.vocab_size), WANTS[(row + index) % WANTS.len()])
            };
            let requests: Vec<_> = (0..lengths.len()).map(request).collect();
            for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
                check(&config, precision, LARGE, &requests);
                check(&config, precision, SMALL, &requests);
            }
        }
    }
}

/// On a device of three multiprocessors and 48 KiB of shared memory, as the emulation has: some of a block's weights are kept and
/// some are not, with three rows; with eight there are more cells than threads.
#[test]
fn texts_of_a_layer_too_large_for_a_block_are_those_of_the_cpu() {
    let config = Config { hidden_size: 200, vocab_size: 61, ..config() };
    for rows in [3, 8] {
        let request = |row| (tokens(row, 3 + row % 3, config.vocab_size), WANTS[row % WANTS.len()]);
        let requests: Vec<_> = (0..rows).map(request).collect();
        check(&config, Precision::F32, LARGE, &requests);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_call_is_the_cpus(
        (vocab_size, hidden_size, layers) in (2_usize..40, 1_usize..30, 1_usize..4),
        embedding_size in prop::option::of(1_usize..20),
        biases in any::<(bool, bool)>(),
        lengths in prop::collection::vec((0_usize..9, 0_usize..3), 1..12),
        (most_tokens, logits) in (1_usize..40, 1_usize..200),
        seed in 0_usize..1_000_000,
    ) {
        let config = Config {
            vocab_size, hidden_size, layers, embedding_size, lstm_bias: biases.0, output_bias: biases.1,
            start: Start::ZeroState, ..config()
        };
        let request = |(row, &(length, want)): (usize, &(usize, usize))| (tokens(seed + row, length, vocab_size), WANTS[want]);
        let requests: Vec<_> = lengths.iter().enumerate().map(request).collect();
        let mut parts = parts(config.clone());
        parts.tensors = seeded_tensors(&config, seed);
        let capacity = Capacity { states: 24, tokens: most_tokens, logits };
        check_parts(&config, parts, Precision::F32, capacity, &requests);
    }
}

#[test]
fn a_large_vocabulary_without_a_table_reads_its_embeddings() {
    // A table would have 4 * 70,000 * 1,000 numbers.
    let config =
        Config { vocab_size: 70_000, embedding_size: Some(3), hidden_size: 1_000, layers: 1, ..config() };
    let (cpu, device) = (model(config.clone()), device(config, Precision::F32, SMALL));
    let (mut own, mut other) = (cpu.fresh_state().unwrap(), device.fresh_state().unwrap());
    for text in [&[69_999, 5, 0][..], &[33_333]] {
        let logits = |model: &LanguageModel, state: &mut State| {
            model.forward(&mut [Row { state, tokens: text, want: Want::Next }]).unwrap().remove(0).logits
        };
        let (expected, found) = (logits(&cpu, &mut own), logits(&device, &mut other));
        let largest = expected.iter().fold(1.0_f32, |largest, number| largest.max(number.abs()));
        assert!(difference(&expected, &found) <= 1e-5 * largest);
    }
}

#[test]
fn a_demo_member_has_the_same_perplexity_on_a_device() {
    let directory = std::path::Path::new("../deploy/demo/tenor");
    let text: Vec<u32> = tokens(3, 200, 500);
    let cpu = LanguageModel::load(directory, &Device::Cpu).unwrap();
    let expected = evaluate(&cpu, &text, &mut |_| {}).unwrap().perplexity().unwrap();
    for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::Bf16, 0.02), (Precision::F16, 2e-3)] {
        let parts = ModelParts::load(directory).unwrap();
        let device = LanguageModel::on_device(parts, &target(), precision, Capacity::default()).unwrap();
        let found = evaluate(&device, &text, &mut |_| {}).unwrap().perplexity().unwrap();
        assert!((found / expected - 1.0).abs() < tolerance, "{precision}: {found}, {expected}");
    }
}

/// Of sizes that real models have: on a real device, where that is done at once.
#[test]
#[ignore = "takes a device"]
fn large_shapes_and_batches_are_those_of_the_cpu() {
    let config = Config {
        vocab_size: 10_000,
        embedding_size: Some(650),
        hidden_size: 650,
        start: Start::ZeroState,
        ..config()
    };
    let capacity = Capacity { states: 300, ..Capacity::default() };
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        for rows in [1, 16, 64, 256] {
            let request = |row| (tokens(row, 1, config.vocab_size), Want::Next);
            check(&config, precision, capacity, &(0..rows).map(request).collect::<Vec<_>>());
        }
        for rows in [1, 8, 20] {
            let request = |row: usize| (tokens(row, 40 + row, config.vocab_size), WANTS[row % 2]);
            check(&config, precision, capacity, &(0..rows).map(request).collect::<Vec<_>>());
        }
    }
    // More weights than the shared memory of all multiprocessors has room for.
    let config = Config { vocab_size: 1_000, embedding_size: Some(1_500), hidden_size: 1_500, ..config };
    for (rows, length) in [(1, 30), (8, 12), (16, 1)] {
        let request = |row: usize| (tokens(row, length, config.vocab_size), Want::Next);
        check(&config, Precision::F32, capacity, &(0..rows).map(request).collect::<Vec<_>>());
    }
}
