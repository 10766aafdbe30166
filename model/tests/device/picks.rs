//! What is found where the logits stand, held against what the host finds in their rows.

use super::*;

/// Picks are compared with the host's picks from the device's own rows: those have the same bits.
#[test]
fn what_is_picked_on_the_device_is_what_the_host_picks_from_its_rows() {
    let config = Config { vocab_size: 61, ..config() };
    let device = device(config.clone(), Precision::F32, SMALL);
    let request = |row: usize| (tokens(row, 1 + row % 4, config.vocab_size), WANTS[row % 2]);
    let requests: Vec<_> = (0..9).map(request).collect();
    let rows = answers(&device, &mut states(&device, 9), &requests, &[Reduction::Row; 9]);
    let ids = [0, 7, 60];
    let asked = [
        Reduction::Top { k: 5, log_threshold: None },
        Reduction::Top { k: 0, log_threshold: Some(-3.0) },
        Reduction::Top { k: 100, log_threshold: Some(-1.0) },
        Reduction::Ids(&ids),
        Reduction::Draw { uniform: 0.3 },
        Reduction::Draw { uniform: 0.0 },
    ];
    for shift in 0..asked.len() {
        let reductions: Vec<_> = (0..9).map(|row| asked[(row + shift) % asked.len()]).collect();
        let found = answers(&device, &mut states(&device, 9), &requests, &reductions);
        assert_eq!(found.len(), rows.len());
        for ((row, _, what, numbers), (.., whole)) in found.iter().zip(&rows) {
            let logits = &whole[whole.len() - config.vocab_size..];
            let (norm, mut room) =
                (chorus_model::Norm { largest: whole[0], log_sum: whole[1].into() }, Room::default());
            let expected = match reductions[*row].of(logits, norm, &mut room) {
                Reduced::Top { ids, logits } => (format!("top {ids:?}"), logits.to_vec()),
                Reduced::Ids(logits) => ("ids".to_owned(), logits.to_vec()),
                Reduced::Drawn(token) => (format!("drawn {token}"), vec![]),
                other => panic!("{other:?}"),
            };
            assert_eq!(*what, expected.0);
            assert!(numbers.ends_with(&expected.1), "{numbers:?} {:?}", expected.1);
        }
    }
}

#[test]
fn a_number_that_is_not_finite_is_told_of_its_row_alone() {
    let mut parts = parts(config());
    let embedding = parts.tensors.get_mut("embed.weight").unwrap();
    let mut rows = embedding.to_vec2::<f32>().unwrap();
    rows[4][0] = f32::NAN;
    *embedding = candle_core::Tensor::new(rows, &Device::Cpu).unwrap();
    let device = LanguageModel::on_device(parts, &target(), Precision::F32, SMALL).unwrap();
    let requests = [(vec![1], Want::Next), (vec![4], Want::Next), (vec![5], Want::Next)];
    let reductions = [Reduction::Top { k: 1, log_threshold: None }; 3];
    let mut states = vec![device.fresh_state().unwrap(); 3];
    let found = answers(&device, &mut states, &requests, &reductions);
    let finite: Vec<bool> =
        found.iter().map(|(.., numbers)| numbers.iter().all(|number| number.is_finite())).collect();
    assert_eq!(finite, [true, false, true]);
    assert_eq!(found[1].2, "norm");
}
