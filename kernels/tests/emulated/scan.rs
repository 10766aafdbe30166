//! All steps of a layer in one launch, held against the formulas of an LSTM number by number: whatever a block keeps of its
//! weights, and in however many parts it multiplies.

use chorus_kernels::{
    Address, Grid, Kernel, SCAN_THREADS, ScanArguments, Tile, WeightKind, emulated::launch,
};

const HIDDEN: usize = 20;
/// Rounded up to 8.
const PADDED: usize = 24;
/// The last block has fewer.
const UNITS: usize = 8;
const VOCABULARY: usize = 5;
/// One of several layers.
const LAYER: usize = 1;
const LAYERS: usize = 2;
const SLOT: usize = LAYERS * 2 * PADDED;

/// Numbers that tell each other apart, none of them large.
fn number(place: usize) -> f32 {
    ((place * 2_654_435_761) % 1009) as f32 / 1009.0 - 0.5
}

fn numbers(seed: usize, count: usize) -> Vec<f32> {
    (0..count).map(|place| number(seed * 7919 + place)).collect()
}

/// Rows of `HIDDEN` numbers, filled up with zeros as all hidden vectors and weights are.
fn rows(seed: usize, count: usize) -> Vec<f32> {
    let row = |index| numbers(seed + index, HIDDEN).into_iter().chain([0.0; PADDED - HIDDEN]);
    (0..count).flat_map(row).collect()
}

/// A layer and what is fed to it.
struct Given {
    weights: Vec<f32>,
    bias: Vec<f32>,
    table: Option<Vec<f32>>,
    projected: Vec<f32>,
    tokens: Vec<u32>,
    offsets: Vec<u32>,
    before: Vec<f32>,
    slots: Vec<f32>,
    sequences: usize,
}

/// Hidden vectors of every step, and each sequence's state in the end.
type Found = (Vec<f32>, Vec<(Vec<f32>, Vec<f32>)>);

impl Given {
    /// Sequences of these lengths, the longest first.
    fn new(lengths: &[usize], has_table: bool) -> Self {
        let sizes = (0..lengths[0]).map(|step| lengths.iter().filter(|&&length| length > step).count());
        let mut offsets = vec![0];
        sizes.for_each(|size| offsets.push(offsets.last().unwrap() + size as u32));
        let total = lengths.iter().sum();
        Self {
            weights: rows(1, 4 * HIDDEN),
            bias: numbers(200, 4 * HIDDEN),
            table: has_table.then(|| numbers(300, VOCABULARY * HIDDEN * 4)),
            projected: numbers(400, total * HIDDEN * 4),
            tokens: (0..total).map(|place| (place * 3 % VOCABULARY) as u32).collect(),
            offsets,
            before: rows(500, lengths.len()),
            slots: numbers(600, 2 * lengths.len() * SLOT),
            sequences: lengths.len(),
        }
    }

    fn steps(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Sequence s begins in slot s, and ends in the one that is so many behind.
    fn slot(&self, sequence: usize, is_after: bool) -> usize {
        (if is_after { self.sequences } else { 0 } + sequence) * SLOT + LAYER * 2 * PADDED
    }

    /// By the formulas, in f64.
    fn expected(&self) -> Found {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let mut h: Vec<Vec<f64>> =
            self.before.chunks(PADDED).map(|row| row[..HIDDEN].iter().map(|&x| x.into()).collect()).collect();
        let cells = |sequence| &self.slots[self.slot(sequence, false) + PADDED..][..HIDDEN];
        let mut c: Vec<Vec<f64>> =
            (0..self.sequences).map(|sequence| cells(sequence).iter().map(|&x| x.into()).collect()).collect();
        let mut all = Vec::new();
        for (row, token) in self.tokens.iter().enumerate() {
            let step = self.offsets.iter().rposition(|&offset| offset as usize <= row).unwrap();
            let sequence = row - self.offsets[step] as usize;
            let mut after = Vec::new();
            for unit in 0..HIDDEN {
                let gate = |gate: usize| {
                    let weights = &self.weights[(4 * unit + gate) * PADDED..][..HIDDEN];
                    let products = weights.iter().zip(&h[sequence]).map(|(&weight, h)| f64::from(weight) * h);
                    let begun = match &self.table {
                        Some(table) => f64::from(table[(*token as usize * HIDDEN + unit) * 4 + gate]),
                        None => {
                            f64::from(self.bias[4 * unit + gate])
                                + f64::from(self.projected[(row * HIDDEN + unit) * 4 + gate])
                        }
                    };
                    begun + products.sum::<f64>()
                };
                let cell = &mut c[sequence][unit];
                *cell = sigmoid(gate(1)) * *cell + sigmoid(gate(0)) * gate(2).tanh();
                after.push(sigmoid(gate(3)) * cell.tanh());
            }
            all.extend(after.iter().map(|&x| x as f32));
            h[sequence] = after;
        }
        let narrow = |numbers: &[f64]| numbers.iter().map(|&x| x as f32).collect();
        (all, h.iter().zip(&c).map(|(h, c)| (narrow(h), narrow(c))).collect())
    }

    /// By the kernel, whose blocks keep so many units' weights and multiply in so many parts.
    fn scanned(&self, kept: usize, parts: usize) -> Found {
        let tile = Tile::of(self.sequences);
        let rows = tile.rows() as usize;
        let from: Vec<u32> = (0..self.sequences as u32).collect();
        let to: Vec<u32> = from.iter().map(|slot| slot + self.sequences as u32).collect();
        let (mut after, mut slots) = (vec![0.0_f32; self.tokens.len() * PADDED], self.slots.clone());
        let mut counter = [0_u32];
        let address = |numbers: &[f32]| Address(numbers.as_ptr() as u64);
        let words = |words: &[u32]| Address(words.as_ptr() as u64);
        let arguments = ScanArguments {
            weights: address(&self.weights),
            projected: if self.table.is_some() { Address::NONE } else { address(&self.projected) },
            table: self.table.as_deref().map_or(Address::NONE, address),
            bias: if self.table.is_some() { Address::NONE } else { address(&self.bias) },
            slots: Address(slots.as_mut_ptr() as u64),
            tokens: words(&self.tokens),
            from: words(&from),
            to: words(&to),
            offsets: words(&self.offsets),
            before: address(&self.before),
            after: Address(after.as_mut_ptr() as u64),
            counter: Address(counter.as_mut_ptr() as u64),
            steps: self.steps() as u32,
            hidden: HIDDEN as u32,
            padded: PADDED as u32,
            slot_numbers: SLOT as u32,
            layer: LAYER as u32,
            units: UNITS as u32,
            kept: kept as u32,
            parts: parts as u32,
        };
        let shared = size_of::<f32>() * (rows * PADDED + UNITS * parts * rows * 4 + kept * 4 * PADDED);
        let grid = Grid::new((HIDDEN.div_ceil(UNITS) as u32, 1), SCAN_THREADS / 2);
        // SAFETY: the arguments are of these vectors.
        unsafe {
            launch(
                Kernel::Scan(WeightKind::F32, tile),
                grid.cooperative().with_shared(shared as u32),
                &arguments,
            )
        }
        .unwrap();
        let all = after.chunks(PADDED).flat_map(|row| &row[..HIDDEN]).copied().collect();
        let state = |sequence| {
            let vectors = &slots[self.slot(sequence, true)..];
            (vectors[..HIDDEN].to_vec(), vectors[PADDED..][..HIDDEN].to_vec())
        };
        (all, (0..self.sequences).map(state).collect())
    }
}

fn is_close(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() <= 2e-6)
}

#[test]
fn a_scan_is_the_formulas_whatever_is_kept_and_however_it_is_cut() {
    for lengths in [&[4][..], &[5, 3, 3, 1], &[4, 4, 3, 3, 2, 1, 1, 1]] {
        for has_table in [true, false] {
            let given = Given::new(lengths, has_table);
            let (all, states) = given.expected();
            for kept in [0, 1, UNITS] {
                // Six packs of four: in four parts of two the last one is empty.
                for parts in [1, 2, 4] {
                    let (found, ends) = given.scanned(kept, parts);
                    let case = format!("{lengths:?}, table {has_table}, {kept} kept, {parts} parts");
                    assert!(is_close(&found, &all), "{case}");
                    for ((h, c), (expected_h, expected_c)) in ends.iter().zip(&states) {
                        assert!(is_close(h, expected_h) && is_close(c, expected_c), "{case}");
                    }
                }
            }
        }
    }
}
