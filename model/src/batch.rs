//! The rows of one inference call as a packed block: gathering states, choosing the hidden vectors that the output
//! layer reads, and scattering results. Knows nothing about files or vocabularies.

use candle_core::{Device, Result, Tensor};

use crate::network::{Network, NetworkState};
use crate::packing::Packing;
use crate::row::{Output, Row, State, Want};

/// The rows of a call, laid out.
pub(crate) struct Batch<'a, 'b> {
    rows: &'a [Row<'b>],
    packing: Packing,
    /// Which row stands at each place of the packed batch; rows without tokens are not in it.
    order: Vec<usize>,
    /// The place of each row with tokens.
    places: Vec<Option<usize>>,
    layers: usize,
    hidden_size: usize,
}

/// What feeding the tokens gave, for rows that have any.
pub(crate) struct Fed {
    /// `[N, H]`.
    hidden: Option<Tensor>,
    /// For each layer h and c `[2, B, H]`, row-major.
    layers: Vec<Vec<f32>>,
}

/// The hidden vectors that the output layer reads.
#[derive(Default)]
struct Selection {
    /// Indices into the packed rows, then into `before`.
    indices: Vec<usize>,
    /// Top hidden vectors of states as they came in, `[_, H]`.
    before: Vec<f32>,
    /// How many of the indices belong to each row of the call.
    counts: Vec<usize>,
}

impl<'a, 'b> Batch<'a, 'b> {
    pub(crate) fn new(rows: &'a [Row<'b>], layers: usize, hidden_size: usize) -> Self {
        let lengths: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
        let (packing, order) = Packing::from_lengths(&lengths);
        let mut places = vec![None; rows.len()];
        for (place, &row) in order.iter().enumerate() {
            places[row] = Some(place);
        }
        Self { rows, packing, order, places, layers, hidden_size }
    }

    /// Runs the network over all tokens.
    pub(crate) fn feed(&self, network: &Network, device: &Device) -> Result<Fed> {
        if self.order.is_empty() {
            return Ok(Fed { hidden: None, layers: Vec::new() });
        }
        let mut tokens = Vec::with_capacity(self.packing.rows());
        for (step, &size) in self.packing.batch_sizes().iter().enumerate() {
            tokens.extend(self.order[..size].iter().map(|&row| self.rows[row].tokens[step]));
        }
        let tokens = Tensor::from_vec(tokens, self.packing.rows(), device)?;
        let (hidden, after) = network.hidden(&tokens, &self.packing, &self.states_before(device)?, None)?;
        let layers = after.layers().iter().map(|layer| layer.flatten_all()?.to_vec1());
        Ok(Fed { hidden: Some(hidden), layers: layers.collect::<Result<_>>()? })
    }

    /// The logits that each row wants.
    pub(crate) fn outputs(&self, network: &Network, device: &Device, fed: &Fed) -> Result<Vec<Output>> {
        let selection = self.selection();
        let mut logits = match self.selected(&selection, fed, device)? {
            Some(hidden) => network.logits(&hidden)?.flatten_all()?.to_vec1::<f32>()?,
            None => Vec::new(),
        };
        let vocab_size = logits.len() / selection.indices.len().max(1);
        if let [count] = selection.counts[..] {
            debug_assert_eq!(logits.len(), count * vocab_size);
            return Ok(vec![Output { logits: std::mem::take(&mut logits) }]);
        }
        let mut rest = logits.as_slice();
        let split = selection.counts.iter().map(|count| {
            let (mine, others) = rest.split_at(count * vocab_size);
            rest = others;
            Output { logits: mine.to_vec() }
        });
        Ok(split.collect())
    }

    /// The new state of every row that was fed, with the row's index.
    pub(crate) fn states_after(&self, fed: &Fed) -> Result<Vec<(usize, State)>> {
        let (size, batch) = (self.hidden_size, self.packing.batch());
        let after = self.order.iter().enumerate().map(|(place, &row)| {
            let mut values = Vec::with_capacity(2 * self.layers * size);
            for layer in &fed.layers {
                values.extend_from_slice(&layer[place * size..][..size]);
                values.extend_from_slice(&layer[(batch + place) * size..][..size]);
            }
            (row, State { values: values.into() })
        });
        Ok(after.collect())
    }

    fn states_before(&self, device: &Device) -> Result<NetworkState> {
        let (size, batch) = (self.hidden_size, self.packing.batch());
        let layer = |layer: usize| {
            let mut values = Vec::with_capacity(2 * batch * size);
            for half in [2 * layer, 2 * layer + 1] {
                for &row in &self.order {
                    values.extend_from_slice(&self.rows[row].state.values[half * size..][..size]);
                }
            }
            Tensor::from_vec(values, (2, batch, size), device)
        };
        Ok(NetworkState::from_layers((0..self.layers).map(layer).collect::<Result<_>>()?))
    }

    fn selection(&self) -> Selection {
        let mut selection = Selection::default();
        for (row, place) in self.rows.iter().zip(&self.places) {
            let count = selection.indices.len();
            match (row.want, place) {
                (Want::Nothing, _) | (Want::Each, None) => {}
                (Want::Next, None) => self.select_before(&mut selection, row),
                (Want::Next, Some(place)) => {
                    selection.indices.push(self.packing.row(row.tokens.len() - 1, *place));
                }
                (Want::Each, Some(place)) => {
                    self.select_before(&mut selection, row);
                    let steps = 0..row.tokens.len() - 1;
                    selection.indices.extend(steps.map(|step| self.packing.row(step, *place)));
                }
            }
            selection.counts.push(selection.indices.len() - count);
        }
        selection
    }

    /// Selects the top layer's h of a row's state as it came in.
    fn select_before(&self, selection: &mut Selection, row: &Row<'_>) {
        let size = self.hidden_size;
        selection.indices.push(self.packing.rows() + selection.before.len() / size);
        selection.before.extend_from_slice(&row.state.values[2 * (self.layers - 1) * size..][..size]);
    }

    fn selected(&self, selection: &Selection, fed: &Fed, device: &Device) -> Result<Option<Tensor>> {
        if selection.indices.is_empty() {
            return Ok(None);
        }
        let mut sources = Vec::with_capacity(2);
        sources.extend(fed.hidden.clone());
        if !selection.before.is_empty() {
            let rows = selection.before.len() / self.hidden_size;
            sources.push(Tensor::from_slice(&selection.before, (rows, self.hidden_size), device)?);
        }
        let source = Tensor::cat(&sources, 0)?;
        // One token for each row in one order: nothing to move.
        if selection.indices.iter().copied().eq(0..source.dim(0)?) {
            return Ok(Some(source));
        }
        let indices: Vec<u32> = selection.indices.iter().map(|&index| index as u32).collect();
        Ok(Some(source.index_select(&Tensor::new(indices, device)?, 0)?))
    }
}
