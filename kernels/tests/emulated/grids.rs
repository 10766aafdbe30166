//! What the emulation refuses, and what it finds out about kernels that a device would hang on.

use chorus_kernels::{
    Address, BeginArguments, EmbedArguments, Grid, Kernel, ScanArguments, THREADS, Tile, WeightKind,
    emulated::{EmulationError, launch},
};

fn begin(source: &[u32], target: &mut [u32], counters: &mut [u32]) -> BeginArguments {
    BeginArguments {
        source: Address(source.as_ptr() as u64),
        target: Address(target.as_mut_ptr() as u64),
        counters: Address(counters.as_mut_ptr() as u64),
        words: source.len() as u32,
        counter_count: counters.len() as u32,
    }
}

/// The last one is less than a pack of four.
#[test]
fn every_word_is_copied_whatever_the_grid() {
    const WORDS: usize = 1003;
    // From 16 bytes on, as a device's memory begins.
    let packs = || vec![0_u128; WORDS.div_ceil(4)];
    let mut source = packs();
    let source: &mut [u32] = &mut bytemuck::cast_slice_mut(&mut source)[..WORDS];
    source.iter_mut().zip(1..).for_each(|(word, number)| *word = number);
    for blocks in [1, 2, 5] {
        let (mut target, mut counters) = (packs(), [7, 7, 7]);
        let target: &mut [u32] = bytemuck::cast_slice_mut(&mut target);
        let arguments = begin(source, &mut target[..WORDS], &mut counters);
        // SAFETY: the arguments are of these vectors.
        unsafe { launch(Kernel::Begin, Grid::new((blocks, 1), THREADS), &arguments) }.unwrap();
        assert_eq!((&target[..WORDS], counters), (&*source, [0; 3]));
        assert!(target[WORDS..].iter().all(|&word| word == 0));
    }
}

#[test]
fn what_does_not_fit_the_kernel_is_refused() {
    let arguments = begin(&[], &mut [], &mut []);
    // SAFETY: nothing runs.
    let launch = |kernel, threads| unsafe { launch(kernel, Grid::new((1, 1), threads), &arguments) };
    for threads in [0, 33, 2 * THREADS] {
        let error = launch(Kernel::Begin, threads).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{threads} threads in a block, allowed are whole warps, at most 256")
        );
    }
    let other = launch(Kernel::Load(WeightKind::F32), THREADS).unwrap_err();
    assert!(matches!(other, EmulationError::Arguments { found: 32, expected: 32.. }), "{other}");
    let embed = size_of::<EmbedArguments>();
    assert_eq!(embed, 32, "so an embedding's arguments would be taken");
}

/// The sequence is too short for numbers to matter: only the two blocks do, which wait for each other.
#[test]
fn blocks_that_wait_for_each_other_must_run_together() {
    const HIDDEN: usize = 8;
    const UNITS: usize = 4;
    let numbers = vec![0.25_f32; 4 * HIDDEN * HIDDEN];
    let (before, mut after) = (vec![0.0_f32; HIDDEN], vec![0.0_f32; 2 * HIDDEN]);
    let mut slots = vec![0.0_f32; 2 * 2 * HIDDEN];
    let (tokens, offsets, slot) = ([0_u32; 2], [0_u32, 1, 2], [[0_u32], [1]]);
    let mut counter = [0_u32];
    let arguments = ScanArguments {
        weights: Address(numbers.as_ptr() as u64),
        projected: Address(numbers.as_ptr() as u64),
        table: Address::NONE,
        bias: Address(numbers.as_ptr() as u64),
        slots: Address(slots.as_mut_ptr() as u64),
        tokens: Address(tokens.as_ptr() as u64),
        from: Address(slot[0].as_ptr() as u64),
        to: Address(slot[1].as_ptr() as u64),
        offsets: Address(offsets.as_ptr() as u64),
        before: Address(before.as_ptr() as u64),
        after: Address(after.as_mut_ptr() as u64),
        counter: Address(counter.as_mut_ptr() as u64),
        steps: 2,
        hidden: HIDDEN as u32,
        padded: HIDDEN as u32,
        slot_numbers: 2 * HIDDEN as u32,
        layer: 0,
        units: UNITS as u32,
        kept: 1,
        parts: 2,
    };
    let kernel = Kernel::Scan(WeightKind::F32, Tile::of(1));
    // The hidden vector, four gates of each part of a unit, and one unit's weights.
    let shared = size_of::<f32>() * (HIDDEN + 2 * UNITS * 4 + 4 * HIDDEN);
    let grid = Grid::new((2, 1), 32).with_shared(shared as u32);
    // SAFETY: the arguments are of these vectors.
    let error = unsafe { launch(kernel, grid, &arguments) }.unwrap_err();
    assert_eq!(
        error.to_string(),
        "block (0, 0) waits for ever: thread 0 for Ready, thread 1 for Block, thread 2 for Block, thread 3 for Block"
    );
    // SAFETY: nobody else holds it; the first launch left it behind.
    unsafe { (arguments.counter.0 as *mut u32).write(0) };
    // SAFETY: as above.
    unsafe { launch(kernel, grid.cooperative(), &arguments) }.unwrap();
    assert!(after.iter().all(|&h| h > 0.0) && slots[2 * HIDDEN..].iter().all(|&number| number > 0.0));
    assert_eq!(slots[2 * HIDDEN..3 * HIDDEN], after[HIDDEN..]);
}
