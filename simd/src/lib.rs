//! exp, ln, σ and tanh on vectors, and what is built of them over rows of logits: log-sum-exps, mixtures, draws and what
//! else may be wanted to be known of a row.
//!
//! Written once over [`pulp::Simd`] and compiled for every instruction set; [`instructions`] picks the widest one that
//! the processor has (AVX-512, AVX2 with FMA, NEON, else scalars). Knows nothing about models, members or wires.

mod counts;
mod draw;
mod exponentials;
mod find;
mod functions;
mod logarithm;
mod norm;
mod reduction;
mod scores;
mod values;

pub use counts::{count_at_least, mass_above, sums_above};
pub use draw::draw;
pub use exponentials::{Term, mixture};
pub use find::{find_above, find_ahead, for_each_within, largest};
pub use functions::{decay, exp, map_in_place, sigmoid, tanh};
pub use logarithm::{ln, power};
pub use norm::{Norm, log_sum_exp, norm};
pub use reduction::{Reduced, Reduction, Room};
pub use scores::{maximum, softmax, weighted_sum};
pub use values::Values;

use std::sync::LazyLock;

use pulp::Arch;

/// The widest instruction set of this processor.
///
/// ```
/// use pulp::{Simd, WithSimd};
///
/// struct Lanes;
/// impl WithSimd for Lanes {
///     type Output = usize;
///     fn with_simd<S: Simd>(self, _: S) -> usize {
///         S::F32_LANES
///     }
/// }
/// assert!(chorus_simd::instructions().dispatch(Lanes) >= 1);
/// ```
pub fn instructions() -> Arch {
    static INSTRUCTIONS: LazyLock<Arch> = LazyLock::new(Arch::new);
    *INSTRUCTIONS
}

/// Every instruction set that this processor has: what tests hold against each other.
#[must_use]
pub fn all_instructions() -> Vec<Arch> {
    let mut all = vec![Arch::Scalar];
    #[cfg(target_arch = "x86_64")]
    {
        all.extend(pulp::x86::V3::try_new().map(Arch::V3));
        all.extend(pulp::x86::V4::try_new().map(Arch::V4));
    }
    #[cfg(target_arch = "aarch64")]
    all.extend(pulp::aarch64::Neon::try_new().map(Arch::Neon));
    all
}

#[cfg(all(test, target_arch = "aarch64"))]
mod tests {
    #[test]
    fn vectors_of_four_are_used_on_aarch64() {
        assert!(matches!(crate::instructions(), pulp::Arch::Neon(_)));
        assert_eq!(crate::all_instructions().len(), 2);
    }
}
