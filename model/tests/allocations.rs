//! A steady step allocates nothing: the workspace has grown to the block's size and is written again.

#![allow(clippy::unwrap_used)]

mod common;

use std::num::NonZeroUsize;

use chorus_model::{Config, LanguageModel, Row, State, Want};

fn allocations(model: &LanguageModel, states: &mut [State], time: usize, want: Want) -> u64 {
    let tokens: Vec<u32> = vec![1; time];
    let mut rows: Vec<Row<'_>> =
        states.iter_mut().map(|state| Row { state, tokens: &tokens, want }).collect();
    let mut sum = 0.0;
    let counted = allocation_counter::measure(|| {
        model.predict(&mut rows, &mut |prediction| sum += prediction.norm.log_sum).unwrap();
        while model.has_early_work() {
            model.compute_early().unwrap();
        }
    });
    assert!(sum.is_finite());
    counted.count_total
}

#[test]
fn a_steady_step_allocates_nothing() {
    // The pool of threads allocates now and then to hand work over; one thread hands none.
    chorus_model::use_threads(NonZeroUsize::MIN).unwrap();
    // Of a tied model the embedding is read in blocks.
    for (hidden_size, tied) in [(40, false), (192, false), (192, true)] {
        let embedding_size = if tied { Some(hidden_size) } else { common::config().embedding_size };
        let config = Config { hidden_size, embedding_size, tied, vocab_size: 90, ..common::config() };
        let forms = common::in_every_form(&config);
        assert_eq!(forms.len(), if tied { 5 } else { 2 });
        for (form, model) in forms {
            let mut states = vec![model.fresh_state().unwrap(); 64];
            for (time, want) in [(1, Want::Next), (32, Want::Each), (3, Want::Nothing)] {
                let first = allocations(&model, &mut states, time, want);
                assert!(time < 32 || first > 0, "the counter counts");
                for count in [64, 7, 1, 64] {
                    let found = allocations(&model, &mut states[..count], time, want);
                    assert_eq!(found, 0, "{form} {hidden_size} {time} {want:?} {count}");
                }
            }
        }
    }
}
