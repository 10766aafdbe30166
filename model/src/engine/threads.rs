//! Panels spread over the threads that compute. Knows nothing about what is computed.

use crate::threads::sharing;

/// Multiplications of which a share has about as many, if not more: some 20 µs of one core's work, for less of which it does
/// not pay to wake other threads.
const OF_A_SHARE: usize = 1 << 20;

/// Runs `run(first panel, its part of output)` over all panels, each of which writes `size` numbers of `output`: on one
/// thread, or in shares where there are more and `multiplications` is large. Many shares: whoever is done early takes more
/// of them, and nobody waits for longer than for one.
pub(super) fn for_panels(
    output: &mut [f32],
    size: usize,
    multiplications: usize,
    run: impl Fn(usize, &mut [f32]) + Sync,
) {
    let panels = output.len() / size.max(1);
    let shares = match multiplications / OF_A_SHARE {
        0 | 1 => 1,
        _ if sharing() == 1 => 1,
        shares => shares.min(panels),
    };
    share(output, size, 0, panels, shares, &run);
}

fn share(
    output: &mut [f32],
    size: usize,
    first: usize,
    panels: usize,
    shares: usize,
    run: &(impl Fn(usize, &mut [f32]) + Sync),
) {
    if shares <= 1 {
        return run(first, output);
    }
    let (left, right) = (shares / 2, shares - shares / 2);
    let middle = panels * left / shares;
    let (one, other) = output.split_at_mut(middle * size);
    rayon::join(
        || share(one, size, first, middle, left, run),
        || share(other, size, first + middle, panels - middle, right, run),
    );
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::num::NonZeroUsize;
    use std::sync::{Barrier, Mutex};

    use super::*;
    use crate::threads::{SpareThreads, without_spare_threads};

    #[test]
    fn large_products_are_shared_with_spare_threads_unless_these_rest() {
        /// On which threads two panels are, of as many multiplications as two shares or one.
        fn threads(multiplications: usize, run: impl Fn() + Sync) -> usize {
            let seen = Mutex::new(HashSet::new());
            for_panels(&mut [0.0; 2], 1, multiplications, |_, _| {
                run();
                seen.lock().unwrap().insert(std::thread::current().id());
            });
            seen.into_inner().unwrap().len()
        }

        let work = || {
            let _spare = SpareThreads::of_this_thread(NonZeroUsize::MIN).unwrap();
            let both = Barrier::new(2);
            // Each waits for the other.
            assert_eq!(threads(2 * OF_A_SHARE, || _ = both.wait()), 2);
            assert_eq!(threads(2 * OF_A_SHARE - 1, || ()), 1, "too little for two");
            assert_eq!(without_spare_threads(|| threads(2 * OF_A_SHARE, || ())), 1);
        };
        std::thread::spawn(work).join().unwrap();
    }

    #[test]
    fn every_panel_is_written_once_by_its_number() {
        for (panels, shares) in [(1, 1), (7, 3), (8, 8), (5, 2), (64, 5)] {
            let mut output = vec![0.0; panels * 3];
            share(&mut output, 3, 0, panels, shares, &|first, output: &mut [f32]| {
                for (panel, output) in output.chunks_mut(3).enumerate() {
                    output.iter_mut().for_each(|value| *value += (first + panel + 1) as f32);
                }
            });
            let expected: Vec<f32> = (0..panels * 3).map(|index| (index / 3 + 1) as f32).collect();
            assert_eq!(output, expected, "{panels} {shares}");
        }
    }
}
