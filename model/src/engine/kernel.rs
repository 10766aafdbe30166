//! How this processor multiplies bytes, chosen at run time. Knows nothing about what the bytes are.

use pulp::Arch;

/// The most k that any kernel takes at once.
pub(super) const LARGEST_GROUP: usize = 4;

/// How bytes are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Four products added to a 32-bit sum by one instruction, 16 columns at once.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// Bytes widened to 16 bits and two products added, 16 columns at once.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// The same, 8 columns at once.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the compiler makes of plain loops.
    Plain,
}

impl Kernel {
    /// The fastest for panels of this instruction set.
    pub(super) fn of(instructions: Arch) -> Self {
        Self::all_of(instructions).first().copied().unwrap_or(Self::Plain)
    }

    /// All that this processor has for panels of this instruction set, the fastest first.
    pub(super) fn all_of(instructions: Arch) -> Vec<Self> {
        match instructions {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) if is_x86_feature_detected!("avx512vnni") => {
                vec![Self::Vnni, Self::Avx512, Self::Plain]
            }
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) => vec![Self::Avx512, Self::Plain],
            #[cfg(target_arch = "x86_64")]
            Arch::V3(_) => vec![Self::Avx2, Self::Plain],
            _ => vec![Self::Plain],
        }
    }

    /// How many k stand side by side in a panel.
    pub(super) fn group(self) -> usize {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Vnni => 4,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 | Self::Avx2 => 2,
            Self::Plain => 1,
        }
    }
}
