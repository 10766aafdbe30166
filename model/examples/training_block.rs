//! How fast one training block (forward, loss, backward) runs: tokens per second.
//!
//! `cargo run --release -p chorus-model --example training_block -- [T] [B] [H] [layers] [V]`

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap, loss::cross_entropy};
use chorus_model::{Config, Network, NetworkState, Packing, Start};

const BLOCKS: usize = 12;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<usize> =
        std::env::args().skip(1).map(|number| number.parse()).collect::<Result<_, _>>()?;
    let number = |index: usize, default: usize| numbers.get(index).copied().unwrap_or(default);
    let (time, batch, size) = (number(0, 64), number(1, 32), number(2, 512));
    let config = Config {
        format: chorus_model::FORMAT,
        name: "block".to_owned(),
        vocab_size: number(4, 65),
        embedding_size: Some(size),
        hidden_size: size,
        layers: number(3, 2),
        tied: false,
        lstm_bias: true,
        output_bias: true,
        start: Start::ZeroState,
        end: None,
    };
    let variables = VarMap::new();
    let network = Network::new(&config, &VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
    let packing = Packing::rectangle(time, batch);
    let rows = packing.rows();
    let ids: Vec<u32> = (0..rows).map(|row| (row * 31 % config.vocab_size) as u32).collect();
    let (tokens, targets) = (Tensor::new(ids.clone(), &Device::Cpu)?, Tensor::new(ids, &Device::Cpu)?);
    let mut state = NetworkState::zeros(config.layers, batch, size, &Device::Cpu)?;
    let (mut forwards, mut backwards) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        let start = Instant::now();
        let (hidden, after) = network.hidden(&tokens, &packing, &state, None)?;
        let loss = cross_entropy(&network.logits(&hidden)?, &targets)?;
        forwards.push(start.elapsed());
        let start = Instant::now();
        loss.backward()?;
        backwards.push(start.elapsed());
        state = after.detach();
    }
    let (forward, backward) = (median(&mut forwards), median(&mut backwards));
    let speed = rows as f64 / (forward + backward).as_secs_f64();
    println!(
        "forward {forward:.1?}, backward {backward:.1?}: {speed:.0} tokens/s (median of {BLOCKS} blocks)"
    );
    Ok(())
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
