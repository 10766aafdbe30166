//! A steady step allocates nothing: the workspace has grown to the block's size and is written again.

#![allow(clippy::unwrap_used)]

mod common;

use chorus_model::{Config, LanguageModel, Precision, Row, State, Want};

fn allocations(model: &LanguageModel, states: &mut [State], time: usize, want: Want) -> u64 {
    let tokens: Vec<u32> = vec![1; time];
    let mut rows: Vec<Row<'_>> =
        states.iter_mut().map(|state| Row { state, tokens: &tokens, want }).collect();
    let mut sum = 0.0;
    let counted = allocation_counter::measure(|| {
        model.predict(&mut rows, &mut |prediction| sum += prediction.norm.log_sum).unwrap();
    });
    assert!(sum.is_finite());
    counted.count_total
}

#[test]
fn a_steady_step_allocates_nothing() {
    for precision in [Precision::F32, Precision::Int8] {
        let parts = common::parts(Config { hidden_size: 40, vocab_size: 90, ..common::config() });
        let model = LanguageModel::from_parts(parts, &candle_core::Device::Cpu, precision).unwrap();
        let mut states = vec![model.fresh_state().unwrap(); 64];
        for (time, want) in [(1, Want::Next), (32, Want::Each), (3, Want::Nothing)] {
            let first = allocations(&model, &mut states, time, want);
            assert!(time < 32 || first > 0, "the counter counts");
            for count in [64, 7, 1, 64] {
                let found = allocations(&model, &mut states[..count], time, want);
                assert_eq!(found, 0, "{precision} {time} {want:?} {count}");
            }
        }
    }
}
