//! A network's weights as the engine reads them: in panels, and the first layer's input side as a table where that is
//! small enough. Of a quantised network there is no such table: it would be larger than everything else.

use candle_core::{Result, Tensor, bail};
use half::f16;
use half::slice::HalfFloatSliceExt as _;
use pulp::{Arch, Simd, WithSimd};

use super::matrix::{Matrix, Numbers, Scratch};
use super::panels::{Aligned, Columns, VECTORS, padded};
use super::product::Activations;
use super::projection::project;
use crate::config::names;
use crate::network::{self, Input, Network};
use crate::precision::Precision;

/// The largest table of the first layer's input projections, in bytes. It replaces a product for every token by a row
/// that is read: less to compute, and at small batches less to read; but it is larger than the embedding by 4H / E.
const TABLE_BYTES: usize = 128 << 20;

/// Tokens that are projected together when the table is made.
const TABLE_BLOCK: usize = 64;

/// All weights of a network.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) input: TokenInput,
    pub(super) layers: Vec<Layer>,
    pub(super) output: Affine,
    pub(super) lanes: usize,
    pub(super) hidden_size: usize,
    pub(super) vocab_size: usize,
}

/// What a token becomes for the first layer.
#[derive(Debug)]
pub(super) enum TokenInput {
    /// Its gates, biases included: `[V][panels][4][lanes]`.
    Table(Aligned<f32>),
    /// Its embedding, `[V][padded E]`, which the first layer projects.
    Embedding {
        /// All rows.
        rows: Vec<f32>,
        /// Numbers in a row.
        width: usize,
    },
    /// The same in 16 bits.
    Halves {
        /// All rows.
        rows: Vec<f16>,
        /// Numbers in a row.
        width: usize,
    },
    /// Its embedding, which is its row of the output layer's blocks.
    Tied {
        /// E.
        size: usize,
    },
}

/// A layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// The input side; none where a table has it.
    pub(super) input: Option<Affine>,
    pub(super) recurrent: Recurrent,
}

/// `x Wᵀ + b`.
#[derive(Debug)]
pub(super) struct Affine {
    matrix: Matrix,
    bias: Aligned<f32>,
    shape: Shape,
}

/// `h Wᵀ`.
#[derive(Debug)]
pub(super) struct Recurrent {
    matrix: Matrix,
    shape: Shape,
}

#[derive(Debug, Clone, Copy)]
struct Shape {
    instructions: Arch,
    lanes: usize,
    panels: usize,
    depth: usize,
}

impl Weights {
    /// Packs a network for an instruction set.
    pub(super) fn new(network: &Network, instructions: Arch, numbers: Numbers<'_>) -> Result<Self> {
        let hidden_size = network.hidden_size;
        let gates = Columns::Gates { hidden_size };
        let lanes = instructions.dispatch(Lanes);
        let input = TokenInput::new(network, lanes, instructions, numbers)?;
        let mut layers = Vec::with_capacity(network.layers.len());
        for (index, layer) in network.layers.iter().enumerate() {
            let in_table = index == 0 && matches!(input, TokenInput::Table(_));
            let affine = || Affine::new(&names::weight_ih(index), &layer.input, gates, instructions, numbers);
            let recurrent = names::weight_hh(index);
            layers.push(Layer {
                input: if in_table { None } else { Some(affine()?) },
                recurrent: Recurrent::new(&recurrent, &layer.weight_hh, gates, instructions, numbers)?,
            });
        }
        let (vocab_size, _) = network.output.weight.dims2()?;
        let in_order = Columns::InOrder { count: vocab_size };
        let output = match &input {
            TokenInput::Tied { .. } => names::EMBED,
            _ => names::LINEAR_WEIGHT,
        };
        let output = Affine::new(output, &network.output, in_order, instructions, numbers)?;
        Ok(Self { input, layers, output, lanes, hidden_size, vocab_size })
    }

    /// Bytes of all weights in memory.
    pub(super) fn bytes(&self) -> usize {
        let input = match &self.input {
            TokenInput::Table(table) => size_of_val(table.as_slice()),
            TokenInput::Embedding { rows, .. } => size_of_val(rows.as_slice()),
            TokenInput::Halves { rows, .. } => size_of_val(rows.as_slice()),
            TokenInput::Tied { .. } => 0,
        };
        let layer = |layer: &Layer| {
            layer.input.as_ref().map_or(0, |input| input.matrix.bytes()) + layer.recurrent.matrix.bytes()
        };
        input + self.layers.iter().map(layer).sum::<usize>() + self.output.matrix.bytes()
    }
}

impl TokenInput {
    fn new(network: &Network, lanes: usize, instructions: Arch, numbers: Numbers<'_>) -> Result<Self> {
        let gates = Columns::Gates { hidden_size: network.hidden_size };
        let Some(first) = network.layers.first() else { bail!("a network needs at least one layer") };
        let embedding = match &network.input {
            Input::OneHot => return one_hot_table(&first.input, gates, lanes).map(Self::Table),
            Input::Embedding(embedding) => embedding,
        };
        let (vocab_size, size) = embedding.dims2()?;
        let width = padded(size, lanes);
        if let Numbers::Blocks(quantized) = numbers {
            return match quantized.blocks(names::EMBED) {
                Some(_) => Ok(Self::Tied { size }),
                None => Ok(Self::Halves { rows: embedding_rows(embedding, width, f16::from_f32)?, width }),
            };
        }
        let rows = embedding_rows(embedding, width, |number| number)?;
        let bytes = vocab_size * gates.panels(lanes) * VECTORS * lanes * size_of::<f32>();
        if bytes > TABLE_BYTES {
            return Ok(Self::Embedding { rows, width });
        }
        let exact = Numbers::Tensors(Precision::F32);
        let affine = Affine::new(&names::weight_ih(0), &first.input, gates, instructions, exact)?;
        Ok(Self::Table(table(&affine, &rows, width)))
    }

    /// A token's embedding, of which lanes that are filled up stay as they are.
    pub(super) fn read(&self, token: usize, output: &Matrix, row: &mut [f32]) {
        match self {
            // Nobody asks: its gates are there.
            Self::Table(_) => {}
            Self::Embedding { rows, width } => row.copy_from_slice(&rows[token * width..][..*width]),
            Self::Halves { rows, width } => rows[token * width..][..*width].convert_to_f32_slice(row),
            Self::Tied { size } => output.read_row(token, &mut row[..*size]),
        }
    }

    /// Numbers of a token's embedding as the first layer's projection reads them, lanes filled up; none where there is a
    /// table.
    pub(super) fn width(&self, lanes: usize) -> usize {
        match self {
            Self::Table(_) => 0,
            Self::Embedding { width, .. } | Self::Halves { width, .. } => *width,
            Self::Tied { size } => padded(*size, lanes),
        }
    }
}

/// An embedding `[V, E]` as `[V][width]` numbers of another type.
fn embedding_rows<T: Copy + Default>(
    embedding: &Tensor,
    width: usize,
    convert: impl Fn(f32) -> T,
) -> Result<Vec<T>> {
    let (vocab_size, size) = embedding.dims2()?;
    let mut rows = vec![T::default(); vocab_size * width];
    let values = embedding.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
    for (row, values) in rows.chunks_exact_mut(width).zip(values.chunks_exact(size)) {
        row.iter_mut().zip(values).for_each(|(number, &value)| *number = convert(value));
    }
    Ok(rows)
}

/// The rows of Wᵀ that one-hot vectors would pick, with the bias.
fn one_hot_table(layer: &network::Affine, gates: Columns, lanes: usize) -> Result<Aligned<f32>> {
    let bias = gates.arrange(lanes, layer.bias()?.as_ref())?;
    let weight = layer.weight.t()?.contiguous()?.to_vec2::<f32>()?;
    let mut table: Aligned<f32> = Aligned::with_capacity(64, weight.len() * bias.len());
    for row in weight {
        let values = gates.rows(lanes).map(|column| column.map_or(0.0, |column| row[column]));
        values.zip(&bias).for_each(|(value, bias)| table.push(value + bias));
    }
    Ok(table)
}

/// Every token's gates, by the very kernel that would compute them at each step: the bits are the same.
fn table(affine: &Affine, embedding: &[f32], width: usize) -> Aligned<f32> {
    let (lanes, panels) = (affine.shape.lanes, affine.shape.panels);
    let gate_width = affine.width();
    let tokens = embedding.len() / width;
    let mut table: Aligned<f32> = aligned_vec::avec!([64]| 0.0; tokens * panels * gate_width);
    let mut rows = vec![0.0; TABLE_BLOCK * width];
    let mut gates = vec![0.0; TABLE_BLOCK * panels * gate_width];
    let blocks = table.chunks_mut(TABLE_BLOCK * panels * gate_width);
    for (table, embedding) in blocks.zip(embedding.chunks(TABLE_BLOCK * width)) {
        let count = embedding.len() / width;
        scatter_rows(embedding, width, lanes, &mut rows[..count * width]);
        let gates = &mut gates[..count * panels * gate_width];
        let rows = Activations { values: &rows[..count * width], rows: count, stride: lanes };
        project(affine, rows, gates, &mut Scratch::default());
        for (panel, gates) in gates.chunks_exact(count * gate_width).enumerate() {
            for (row, gates) in gates.chunks_exact(gate_width).enumerate() {
                table[(row * panels + panel) * gate_width..][..gate_width].copy_from_slice(gates);
            }
        }
    }
    table
}

/// Rows `[count][width]` into the order of activations, `[width / lanes][count][lanes]`.
fn scatter_rows(rows: &[f32], width: usize, lanes: usize, activations: &mut [f32]) {
    let count = rows.len() / width;
    for (row, values) in rows.chunks_exact(width).enumerate() {
        for (group, values) in values.chunks_exact(lanes).enumerate() {
            activations[(group * count + row) * lanes..][..lanes].copy_from_slice(values);
        }
    }
}

impl Shape {
    fn new(weight: &Tensor, columns: Columns, instructions: Arch) -> Result<Self> {
        let lanes = instructions.dispatch(Lanes);
        Ok(Self { instructions, lanes, panels: columns.panels(lanes), depth: weight.dims2()?.1 })
    }
}

impl Affine {
    fn new(
        name: &str,
        affine: &network::Affine,
        columns: Columns,
        instructions: Arch,
        numbers: Numbers<'_>,
    ) -> Result<Self> {
        let shape = Shape::new(&affine.weight, columns, instructions)?;
        let matrix = Matrix::pack(name, &affine.weight, columns, shape.lanes, instructions, numbers)?;
        let bias = Aligned::from_iter(64, columns.arrange(shape.lanes, affine.bias()?.as_ref())?);
        Ok(Self { matrix, bias, shape })
    }

    pub(super) fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// A panel's biases, `[4][lanes]`.
    pub(super) fn bias(&self, panel: usize) -> &[f32] {
        &self.bias[panel * self.width()..][..self.width()]
    }

    pub(super) fn instructions(&self) -> Arch {
        self.shape.instructions
    }

    pub(super) fn depth(&self) -> usize {
        self.shape.depth
    }

    pub(super) fn panels(&self) -> usize {
        self.shape.panels
    }

    /// Numbers of a row in a panel.
    pub(super) fn width(&self) -> usize {
        VECTORS * self.shape.lanes
    }
}

impl Recurrent {
    fn new(
        name: &str,
        weight: &Tensor,
        columns: Columns,
        instructions: Arch,
        numbers: Numbers<'_>,
    ) -> Result<Self> {
        let shape = Shape::new(weight, columns, instructions)?;
        Ok(Self { matrix: Matrix::pack(name, weight, columns, shape.lanes, instructions, numbers)?, shape })
    }

    pub(super) fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    pub(super) fn instructions(&self) -> Arch {
        self.shape.instructions
    }

    pub(super) fn depth(&self) -> usize {
        self.shape.depth
    }

    pub(super) fn panels(&self) -> usize {
        self.shape.panels
    }

    pub(super) fn lanes(&self) -> usize {
        self.shape.lanes
    }
}

/// How many f32 a vector of an instruction set has.
pub(super) struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}
