//! A network's weights as the kernels read them: gates of a unit side by side, every row filled up to 16 bytes, and where it
//! is not too large a table of what the first layer's gates begin with for every token. Knows nothing about states or calls.

use candle_core::{DType, Device, Result, Tensor, bail};
use chorus_kernels::{Address, Grid, InputKind, Kernel, THREADS, TabulateArguments, WeightKind};

use super::launcher::{Launcher, Product, address_of};
use crate::config::Config;
use crate::network::{self, Network};

/// Bytes of a table up to which it is made: it takes the first layer's input products out of every step. 33,278 words and
/// 1,500 units have 799 MB of it in f32.
const TABLE_BYTES: usize = 1 << 30;
/// Tokens whose rows of the table are computed together.
const TABLE_BLOCK: usize = 4096;

/// All weights, on the device.
#[derive(Debug)]
pub(super) struct Weights {
    pub(super) kind: WeightKind,
    pub(super) input: Input,
    pub(super) layers: Vec<Layer>,
    /// `[outputs][padded]`.
    pub(super) output: Matrix,
    /// `[outputs]` f32.
    pub(super) output_bias: Numbers,
    pub(super) sizes: Sizes,
}

/// How long things are, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) vocabulary: usize,
    /// The vocabulary, rounded up to 4.
    pub(super) outputs: usize,
    pub(super) hidden: usize,
    /// The hidden size, rounded up to 8.
    pub(super) padded: usize,
    pub(super) layers: usize,
    /// Numbers of an embedding, rounded up to 8; none where there is a table.
    pub(super) input: usize,
}

/// What the first layer reads of a token.
#[derive(Debug)]
pub(super) enum Input {
    /// `[V][H][4]`: the gates' beginnings, biases included.
    Table(Numbers),
    /// `[V][input]`.
    Embedding(Numbers),
}

/// A layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// `[H][4][input]`, of the first layer only where it has no table.
    pub(super) input: Option<Matrix>,
    /// `[H][4][padded]`.
    pub(super) recurrent: Matrix,
    /// `[H][4]` f32, where the table does not have it.
    pub(super) bias: Option<Numbers>,
}

/// A matrix of rows for products.
#[derive(Debug)]
pub(super) struct Matrix {
    pub(super) numbers: Numbers,
    pub(super) outputs: usize,
    pub(super) depth: usize,
}

/// Numbers on the device, and where they are.
#[derive(Debug)]
pub(super) struct Numbers {
    tensor: Tensor,
    address: Address,
}

impl Sizes {
    pub(super) fn new(config: &Config, kind: WeightKind) -> Self {
        let has_table = 4 * config.vocab_size * config.hidden_size * kind.bytes() <= TABLE_BYTES;
        let input = config.embedding_size.filter(|_| !has_table).map_or(0, |size| size.next_multiple_of(8));
        Self {
            vocabulary: config.vocab_size,
            outputs: config.vocab_size.next_multiple_of(4),
            hidden: config.hidden_size,
            padded: config.hidden_size.next_multiple_of(8),
            layers: config.layers,
            input,
        }
    }

    /// Numbers of a state.
    pub(super) fn slot(self) -> usize {
        2 * self.layers * self.padded
    }

    /// Bytes of all weights as they are kept, and so many more while they are put there.
    pub(super) fn weight_bytes(self, config: &Config, kind: WeightKind) -> (u64, u64) {
        let gates = 4 * self.hidden;
        let input =
            if self.input > 0 { (self.vocabulary + gates) * self.input } else { self.vocabulary * gates };
        let layers = self.layers * gates * self.padded + (self.layers - 1) * gates * self.padded;
        let biases = self.layers * gates + self.outputs;
        let matrices = input + layers + self.outputs * self.padded;
        let kept = matrices * kind.bytes() + biases * size_of::<f32>();
        // A block of the table with its embeddings, and the weights that it is made with.
        let width = config.embedding_size.map_or(0, |size| size.next_multiple_of(8));
        let block = TABLE_BLOCK.min(self.vocabulary) * (gates + width) + gates * width;
        (kept as u64, (block * size_of::<f32>()) as u64)
    }
}

impl Weights {
    /// Arranges a network, whose tensors are on the host in f32, and puts it on the device.
    pub(super) fn new(
        network: &Network,
        config: &Config,
        kind: WeightKind,
        (launcher, device): (&Launcher, &Device),
    ) -> Result<Self> {
        let sizes = Sizes::new(config, kind);
        let make = Make { kind, sizes, launcher, device };
        let Some((first, others)) = network.layers.split_first() else {
            bail!("a network needs at least one layer")
        };
        let output = make.rows(&network.output.weight, sizes.outputs)?;
        let input = match &network.input {
            _ if sizes.input == 0 => Input::Table(make.table(network, first)?),
            network::Input::Embedding(embedding) => Input::Embedding(make.numbers(&fill(embedding, 1)?)?),
            network::Input::OneHot => bail!("one-hot input of {} tokens needs a table", sizes.vocabulary),
        };
        let mut layers = vec![make.layer(first, sizes.input > 0)?];
        for layer in others {
            layers.push(make.layer(layer, true)?);
        }
        let output_bias = match network.output.bias()? {
            Some(bias) => make.exact(&bias.pad_with_zeros(0, 0, sizes.outputs - sizes.vocabulary)?)?,
            None => make.exact(&Tensor::zeros(sizes.outputs, DType::F32, &Device::Cpu)?)?,
        };
        Ok(Self { kind, input, layers, output, output_bias, sizes })
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        let (Input::Table(input) | Input::Embedding(input)) = &self.input;
        let of_layer = |layer: &Layer| {
            let input = layer.input.as_ref().map_or(0, |input| input.numbers.bytes());
            input + layer.recurrent.numbers.bytes() + layer.bias.as_ref().map_or(0, Numbers::bytes)
        };
        let layers: u64 = self.layers.iter().map(of_layer).sum();
        input.bytes() + layers + self.output.numbers.bytes() + self.output_bias.bytes()
    }
}

impl Input {
    pub(super) fn kind(&self) -> InputKind {
        match self {
            Self::Table(_) => InputKind::Table,
            Self::Embedding(_) => InputKind::Embedding,
        }
    }

    pub(super) fn address(&self) -> Address {
        let (Self::Table(numbers) | Self::Embedding(numbers)) = self;
        numbers.address()
    }
}

impl Numbers {
    fn new(tensor: Tensor) -> Result<Self> {
        Ok(Self { address: address_of::tensor(&tensor)?, tensor })
    }

    pub(super) fn address(&self) -> Address {
        self.address
    }

    fn bytes(&self) -> u64 {
        (self.tensor.elem_count() * self.tensor.dtype().size_in_bytes()) as u64
    }
}

/// Makes weights of one kind.
struct Make<'a> {
    kind: WeightKind,
    sizes: Sizes,
    launcher: &'a Launcher,
    device: &'a Device,
}

impl Make<'_> {
    fn dtype(&self) -> DType {
        match self.kind {
            WeightKind::F32 => DType::F32,
            WeightKind::Bf16 => DType::BF16,
            WeightKind::F16 => DType::F16,
        }
    }

    fn numbers(&self, tensor: &Tensor) -> Result<Numbers> {
        self.put(&tensor.detach().to_dtype(self.dtype())?)
    }

    fn exact(&self, tensor: &Tensor) -> Result<Numbers> {
        self.put(&tensor.detach())
    }

    /// On the device; where that is the host itself, nobody else holds it either.
    fn put(&self, tensor: &Tensor) -> Result<Numbers> {
        // Of its own: of a part of a tensor candle would take the whole one along.
        let tensor = tensor.force_contiguous()?;
        Numbers::new(tensor.to_device(self.device)?)
    }

    /// Rows `[_, in]`, filled up with rows of zeros.
    fn rows(&self, weight: &Tensor, outputs: usize) -> Result<Matrix> {
        let filled = fill(weight, 1)?.pad_with_zeros(0, 0, outputs - weight.dim(0)?)?;
        Ok(Matrix { depth: filled.dim(1)?, numbers: self.numbers(&filled)?, outputs })
    }

    /// Rows `[4H, in]` of gates, one gate after the other, as `[H][4][in]`.
    fn gates(&self, weight: &Tensor) -> Result<Matrix> {
        let filled = fill(weight, 1)?;
        let (outputs, depth) = filled.dims2()?;
        let gates = filled.reshape((4, outputs / 4, depth))?.transpose(0, 1)?;
        Ok(Matrix { numbers: self.numbers(&gates)?, outputs, depth })
    }

    fn layer(&self, layer: &network::Layer, has_input: bool) -> Result<Layer> {
        let input = has_input.then(|| self.gates(&layer.input.weight)).transpose()?;
        let bias = has_input.then(|| self.bias(layer)).transpose()?;
        Ok(Layer { input, recurrent: self.gates(&layer.weight_hh)?, bias })
    }

    fn bias(&self, layer: &network::Layer) -> Result<Numbers> {
        self.exact(&self.bias_of(layer)?)
    }

    /// `[H, 4]`.
    fn bias_of(&self, layer: &network::Layer) -> Result<Tensor> {
        match layer.input.bias()? {
            Some(bias) => bias.detach().reshape((4, self.sizes.hidden))?.t(),
            None => Tensor::zeros((self.sizes.hidden, 4), DType::F32, &Device::Cpu),
        }
    }

    /// What the first layer's gates begin with for every token: in f32, and rounded once at the end.
    fn table(&self, network: &Network, first: &network::Layer) -> Result<Numbers> {
        let Sizes { vocabulary, hidden, .. } = self.sizes;
        let embedding = match &network.input {
            network::Input::Embedding(embedding) => fill(embedding, 1)?,
            network::Input::OneHot => {
                // The columns of the weights, gate by gate.
                let columns = first.input.weight.detach().t()?.reshape((vocabulary, 4, hidden))?;
                let bias = self.bias_of(first)?.reshape((1, hidden, 4))?;
                return self.numbers(&columns.transpose(1, 2)?.contiguous()?.broadcast_add(&bias)?);
            }
        };
        let table = Numbers::new(Tensor::zeros((vocabulary, hidden, 4), self.dtype(), self.device)?)?;
        let exact = Make { kind: WeightKind::F32, ..*self };
        let (weights, bias) = (exact.gates(&first.input.weight)?, self.bias(first)?);
        let (block, numbers) = (TABLE_BLOCK.min(vocabulary), 4 * hidden);
        let products = Numbers::new(Tensor::zeros((block, numbers), DType::F32, self.device)?)?;
        for start in (0..vocabulary).step_by(block) {
            let rows = block.min(vocabulary - start);
            let embeddings = exact.numbers(&embedding.narrow(0, start, rows)?)?;
            let product = Product {
                kind: WeightKind::F32,
                weights: weights.numbers.address(),
                outputs: weights.outputs,
                depth: weights.depth,
                input: embeddings.address(),
                rows,
                sums: products.address(),
                adds: false,
            };
            let arguments = TabulateArguments {
                products: products.address(),
                bias: bias.address(),
                table: table.address().plus(start * numbers * self.kind.bytes()),
                rows: rows as u32,
                numbers: numbers as u32,
            };
            let grid = Grid::new((rows as u32, (numbers as u32).div_ceil(THREADS)), THREADS);
            // SAFETY: all of it is held here until the device is done with it.
            unsafe {
                self.launcher.multiply(&product)?;
                self.launcher.launch(Kernel::Tabulate(self.kind), grid, &arguments)?;
            }
            self.launcher.finish()?;
        }
        Ok(table)
    }
}

/// Fills an axis up with zeros to a multiple of 8.
fn fill(tensor: &Tensor, axis: usize) -> Result<Tensor> {
    let size = tensor.dim(axis)?;
    tensor.detach().pad_with_zeros(axis, 0, size.next_multiple_of(8) - size)
}
