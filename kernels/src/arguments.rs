//! What kernels are given: the structs of `cuda/arguments.cuh`, field by field. Knows nothing about who fills them.

/// Where something stands in the memory of a device, or of the host where kernels are emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Address(pub u64);

/// No token.
pub const NO_TOKEN: u32 = u32::MAX;

/// What a kernel takes by value.
///
/// # Safety
/// The type is `repr(C)`, and its fields are those of the kernel's own struct.
pub unsafe trait Arguments: Copy + Send + 'static {}

impl Address {
    /// Nowhere.
    pub const NONE: Self = Self(0);

    /// So many bytes behind.
    #[must_use]
    pub fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// What a layer's gates begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum InputKind {
    /// The row of a table `[V, H, 4]` that the token picks.
    Table = 0,
    /// W x of the token's embedding `[V, input_depth]`.
    Embedding = 1,
    /// W x of the hidden vector of the layer below after this step, in the slots.
    Below = 2,
}

/// What is wanted of a row of logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u32)]
pub enum AskKind {
    /// Its norm.
    #[default]
    Norm = 0,
    /// All of it, the bias added where it stands.
    Row = 1,
    /// The likeliest tokens, and those above a threshold.
    Top = 2,
    /// The logits of some tokens.
    Ids = 3,
    /// A token.
    Draw = 4,
}

/// Of [`crate::Kernel::Begin`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct BeginArguments {
    /// Host memory that the device reads.
    pub source: Address,
    /// Where to.
    pub target: Address,
    /// Words that become zero.
    pub counters: Address,
    /// How many.
    pub words: u32,
    /// How many of them.
    pub counter_count: u32,
}

/// Of [`crate::Kernel::Rows`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct RowsArguments {
    /// `[H][4][input_depth]`; none with a table.
    pub input_weights: Address,
    /// `[H][4][padded]`.
    pub weights: Address,
    /// `[H][4]`; none with a table, which has it.
    pub bias: Address,
    /// Table or embedding.
    pub input: Address,
    /// All slots.
    pub slots: Address,
    /// The rows' tokens.
    pub tokens: Address,
    /// The slot of each row before.
    pub from: Address,
    /// The slot of each row after.
    pub to: Address,
    /// An [`InputKind`].
    pub input_kind: InputKind,
    /// Numbers of a row of the input.
    pub input_depth: u32,
    /// H.
    pub hidden: u32,
    /// H rounded up to 8.
    pub padded: u32,
    /// Numbers of a slot.
    pub slot_numbers: u32,
    /// Which layer.
    pub layer: u32,
    /// How many rows.
    pub rows: u32,
    /// Numbers of each row of `input_weights` that the cache is asked for before the launch before is done.
    pub input_ahead: u32,
    /// The same of `weights`.
    pub ahead: u32,
}

/// Of [`crate::Kernel::Load`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct LoadArguments {
    /// All slots.
    pub slots: Address,
    /// The slot of each row before.
    pub from: Address,
    /// `[layers][rows][padded]` W: h.
    pub before: Address,
    /// Layers.
    pub layers: u32,
    /// How many rows.
    pub rows: u32,
    /// H rounded up to 8.
    pub padded: u32,
    /// Numbers of a slot.
    pub slot_numbers: u32,
}

/// Of [`crate::Kernel::Embed`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct EmbedArguments {
    /// `[V][depth]` W.
    pub embedding: Address,
    /// The rows' tokens.
    pub tokens: Address,
    /// `[rows][depth]` W.
    pub target: Address,
    /// How many rows.
    pub rows: u32,
    /// Numbers of an embedding.
    pub depth: u32,
}

/// Of [`crate::Kernel::Tabulate`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct TabulateArguments {
    /// `[rows][numbers]` f32.
    pub products: Address,
    /// `[numbers]`.
    pub bias: Address,
    /// `[rows][numbers]` W.
    pub table: Address,
    /// How many rows.
    pub rows: u32,
    /// 4 H.
    pub numbers: u32,
}

/// Of [`crate::Kernel::Cell`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct CellArguments {
    /// `[size][H][4]`: the sums of all products.
    pub gates: Address,
    /// `[V][H][4]` W, or none.
    pub table: Address,
    /// `[H, 4]`.
    pub bias: Address,
    /// `[batch][padded]`: c between the steps of a block.
    pub carry: Address,
    /// All slots.
    pub slots: Address,
    /// Of this step's rows.
    pub tokens: Address,
    /// The slot of each row before.
    pub from: Address,
    /// The slot of each row after.
    pub to: Address,
    /// `[size][padded]` W: h after the step.
    pub after: Address,
    /// H.
    pub hidden: u32,
    /// H rounded up to 8.
    pub padded: u32,
    /// Numbers of a slot.
    pub slot_numbers: u32,
    /// Which layer.
    pub layer: u32,
    /// Rows of the step.
    pub size: u32,
    /// Rows of the step that follows: the others end here, and their state goes to its slot.
    pub next_size: u32,
    /// Whether c stands in the slots.
    pub is_first: u32,
}

/// Of [`crate::Kernel::Scan`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct ScanArguments {
    /// `[H][4][padded]`.
    pub weights: Address,
    /// `[N][H][4]`: the input's projections, or none with a table.
    pub projected: Address,
    /// `[V][H][4]` W, or none.
    pub table: Address,
    /// `[H, 4]`.
    pub bias: Address,
    /// All slots.
    pub slots: Address,
    /// The rows' tokens.
    pub tokens: Address,
    /// The slot of each row before.
    pub from: Address,
    /// The slot of each row after.
    pub to: Address,
    /// `[steps + 1]`: where each step's rows begin.
    pub offsets: Address,
    /// `[batch][padded]` W: h before the block.
    pub before: Address,
    /// `[N][padded]` W.
    pub after: Address,
    /// Zero before the launch.
    pub counter: Address,
    /// Steps.
    pub steps: u32,
    /// H.
    pub hidden: u32,
    /// H rounded up to 8.
    pub padded: u32,
    /// Numbers of a slot.
    pub slot_numbers: u32,
    /// Which layer.
    pub layer: u32,
    /// Units of one block.
    pub units: u32,
    /// How many of them have their weights in shared memory.
    pub kept: u32,
    /// Parts that a unit's products are computed in.
    pub parts: u32,
}

/// Of [`crate::Kernel::Select`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct SelectArguments {
    /// `[N][padded]` W: the top layer's h.
    pub hidden: Address,
    /// All slots.
    pub slots: Address,
    /// For each row a row of `hidden`, or with the highest bit a slot.
    pub sources: Address,
    /// `[rows][padded]` W.
    pub target: Address,
    /// How many rows.
    pub rows: u32,
    /// H rounded up to 8.
    pub padded: u32,
    /// Numbers of a slot.
    pub slot_numbers: u32,
    /// Which layer.
    pub layer: u32,
}

/// Of [`crate::Kernel::Project`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct ProjectArguments {
    /// `[outputs][padded]` W.
    pub weights: Address,
    /// `[rows][padded]` W, or none: then the rows are read where the sources say, slots all of them.
    pub selected: Address,
    /// All slots.
    pub slots: Address,
    /// For each row a slot, with the highest bit.
    pub sources: Address,
    /// `[rows][outputs]`.
    pub logits: Address,
    /// A multiple of 4.
    pub outputs: u32,
    /// H rounded up to 8.
    pub padded: u32,
    /// Numbers of a slot.
    pub slot_numbers: u32,
    /// Which layer.
    pub layer: u32,
    /// How many rows.
    pub rows: u32,
    /// Numbers of each weight row that the cache is asked for before the launch before is done.
    pub ahead: u32,
}

/// What is wanted of a row of logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Ask {
    /// Which.
    pub kind: AskKind,
    /// A token whose logit is wanted, too.
    pub target: u32,
    /// [`AskKind::Top`]: the least count. [`AskKind::Ids`]: how many.
    pub count: u32,
    /// [`AskKind::Ids`]: where they begin in the list of ids.
    pub ids: u32,
    /// Where the answer's list begins, in words.
    pub list: u32,
    /// How many entries it has room for.
    pub room: u32,
    /// [`AskKind::Top`]: ln p, infinite where there is none. [`AskKind::Draw`]: the place.
    pub number: f64,
}

/// What is known of a row; lists stand elsewhere: ids first, then logits.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[repr(C)]
pub struct Answer {
    /// ln Σ exp(logit - largest); NaN where a logit is not finite.
    pub log_sum: f64,
    /// The largest logit; infinite where one is not finite.
    pub largest: f32,
    /// The logit of the ask's target.
    pub target: f32,
    /// [`AskKind::Top`]: entries of the list.
    pub count: u32,
    /// The token of [`AskKind::Draw`].
    pub drawn: u32,
}

/// Of [`crate::Kernel::Answers`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct AnswersArguments {
    /// `[rows][outputs]`, without the bias; whole rows get it.
    pub logits: Address,
    /// `[outputs]`.
    pub bias: Address,
    /// One [`Ask`] for each row.
    pub asks: Address,
    /// All asks' tokens.
    pub ids: Address,
    /// One [`Answer`] for each row.
    pub answers: Address,
    /// All asks' lists.
    pub lists: Address,
    /// V.
    pub vocabulary: u32,
    /// Logits of a row, a multiple of 4.
    pub outputs: u32,
    /// How many rows.
    pub rows: u32,
    /// Whether a row is staged in shared memory, for who reads it more than once.
    pub is_staged: u32,
}

// SAFETY: the structs of the C++ side, field by field; the emulation compares the sizes at every launch.
unsafe impl Arguments for BeginArguments {}
// SAFETY: as above.
unsafe impl Arguments for RowsArguments {}
// SAFETY: as above.
unsafe impl Arguments for LoadArguments {}
// SAFETY: as above.
unsafe impl Arguments for EmbedArguments {}
// SAFETY: as above.
unsafe impl Arguments for TabulateArguments {}
// SAFETY: as above.
unsafe impl Arguments for CellArguments {}
// SAFETY: as above.
unsafe impl Arguments for ScanArguments {}
// SAFETY: as above.
unsafe impl Arguments for SelectArguments {}
// SAFETY: as above.
unsafe impl Arguments for ProjectArguments {}
// SAFETY: as above.
unsafe impl Arguments for AnswersArguments {}

impl Answer {
    /// Its size.
    pub const WORDS: usize = size_of::<Self>() / size_of::<u32>();

    /// From the words that a kernel wrote.
    #[must_use]
    pub fn from_words(words: &[u32; Self::WORDS]) -> Self {
        let [low, high, largest, target, count, drawn] = *words;
        Self {
            log_sum: f64::from_bits(u64::from(high) << 32 | u64::from(low)),
            largest: f32::from_bits(largest),
            target: f32::from_bits(target),
            count,
            drawn,
        }
    }
}
