"""PyTorch as an engine: `python -m engines.in_pytorch --weights FILE --shape V,E,H,L --threads N --precision f32|int8`.

Knows the ways in which PyTorch can run an LSTM language model on a CPU, and nothing about who is compared with it.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file

from engines import protocol
from engines.shapes import Shape
from engines.weights import tokens as random_tokens

State = tuple[torch.Tensor, torch.Tensor]
# Tokens [T, B] and the state, h and c each [L, B, H], to logits [T, B, V] and the state behind them.
Forward = Callable[[torch.Tensor, State], tuple[torch.Tensor, State]]

# Large enough that a multiplication runs at its full rate, small enough to be done in milliseconds.
SGEMM_SIZE = 1_024


class Network(torch.nn.Module):
    """The model as PyTorch's users write it; its `state_dict` is the weights file."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(shape.vocabulary, shape.embedding)
        self.rnn = torch.nn.LSTM(shape.embedding, shape.hidden, shape.layers)
        self.linear = torch.nn.Linear(shape.hidden, shape.vocabulary)

    def forward(
        self, tokens: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        output, state = self.rnn(self.embed(tokens), state)
        return self.linear(output), state


class Cells(torch.nn.Module):
    """The same model from `LSTMCell`s, for one token at a time: no sequence machinery around a step."""

    def __init__(self, network: Network, shape: Shape) -> None:
        super().__init__()
        self.embed, self.linear = network.embed, network.linear
        self.cells = torch.nn.ModuleList()
        for layer in range(shape.layers):
            weights = network.rnn._flat_weights[4 * layer : 4 * layer + 4]
            cell = torch.nn.LSTMCell(weights[0].shape[1], shape.hidden)
            cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh = weights
            self.cells.append(cell)

    def forward(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        value = self.embed(tokens[0])
        hs, cs = [], []
        for layer, cell in enumerate(self.cells):
            value, c = cell(value, (state[0][layer], state[1][layer]))
            hs.append(value)
            cs.append(c)
        return self.linear(value).unsqueeze(0), (torch.stack(hs), torch.stack(cs))


class Packed(torch.nn.Module):
    """The same step with every matrix packed for MKL beforehand, input and recurrent weights as one matrix."""

    def __init__(self, network: Network, shape: Shape, batch: int) -> None:
        super().__init__()
        self.embed, self.batch = network.embed, batch
        self.layers = []
        for layer in range(shape.layers):
            ih, hh, bias_ih, bias_hh = network.rnn._flat_weights[4 * layer : 4 * layer + 4]
            self.layers.append(self.packed(torch.cat([ih, hh], 1), bias_ih + bias_hh))
        self.output = self.packed(network.linear.weight, network.linear.bias)

    def packed(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.ops.mkl._mkl_reorder_linear_weight(weight.contiguous(), self.batch), weight, bias

    def linear(self, value: torch.Tensor, layer: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.ops.mkl._mkl_linear(value, layer[0], layer[1], layer[2], self.batch)

    def forward(self, tokens: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        value = self.embed(tokens[0])
        hs, cs = [], []
        for index, layer in enumerate(self.layers):
            gates = self.linear(torch.cat([value, state[0][index]], 1), layer)
            i, f, g, o = gates.chunk(4, 1)
            c = torch.sigmoid(f) * state[1][index] + torch.sigmoid(i) * torch.tanh(g)
            value = torch.sigmoid(o) * torch.tanh(c)
            hs.append(value)
            cs.append(c)
        return self.linear(value, self.output).unsqueeze(0), (torch.stack(hs), torch.stack(cs))


class PyTorch:
    """The modes of one precision; each is made on its first use."""

    def __init__(self, shape: Shape, weights: Path, precision: str, compiled: bool) -> None:
        self.shape, self.precision, self.compiled = shape, precision, compiled
        self.network = Network(shape).eval().requires_grad_(False)
        self.network.load_state_dict(load_file(weights))
        self.made: dict[tuple[str, int], Forward] = {}

    def modes(self, kind: str) -> list[str]:
        if self.precision == "int8":
            engines = [name for name in torch.backends.quantized.supported_engines if name in ("x86", "onednn", "fbgemm")]
            return engines or ["qnnpack"]
        modes = ["lstm", "lstm-mkl", "jit"]
        if kind == "step":
            modes.append("cells")
            modes += ["packed"] if torch.backends.mkl.is_available() else []
            modes += ["compile"] if self.compiled else []
        return modes

    def prepare(self, mode: str, batch: int, length: int, carried: bool) -> protocol.Call:
        torch.backends.mkldnn.set_flags(_enabled=mode != "lstm-mkl")
        forward = self.forward(mode, batch)
        tokens = torch.from_numpy(random_tokens(self.shape.vocabulary, length, batch))
        zero = self.zero_state(batch)
        state = zero

        def call() -> numpy.ndarray:
            nonlocal state
            logits, state = forward(tokens, state if carried else zero)
            return logits.numpy()

        return call

    def logits(self, mode: str, tokens: list[int]) -> numpy.ndarray:
        forward = self.forward(mode, 1)
        state = self.zero_state(1)
        logits = torch.empty(0)
        for token in tokens:
            logits, state = forward(torch.tensor([[token]]), state)
        return logits.numpy()[0, 0]

    def forward(self, mode: str, batch: int) -> Forward:
        # Only MKL's packing depends on the batch.
        key = (mode, batch if mode == "packed" else 0)
        if key not in self.made:
            self.made[key] = self.make(mode, batch)
        return self.made[key]

    def make(self, mode: str, batch: int) -> Forward:
        if self.precision == "int8":
            torch.backends.quantized.engine = mode
            layers = {torch.nn.LSTM, torch.nn.Linear}
            return torch.ao.quantization.quantize_dynamic(self.network, layers, dtype=torch.qint8)
        if mode == "jit":
            return torch.jit.freeze(torch.jit.script(self.network))
        if mode == "cells":
            return Cells(self.network, self.shape)
        if mode == "packed":
            return Packed(self.network, self.shape, batch)
        if mode == "compile":
            return torch.compile(Cells(self.network, self.shape), options={"freezing": True})
        if mode in ("lstm", "lstm-mkl"):
            return self.network
        raise ValueError(f"there is no mode {mode!r}")

    def zero_state(self, batch: int) -> State:
        zeros = torch.zeros(self.shape.layers, batch, self.shape.hidden)
        return zeros, zeros.clone()

    def bandwidth(self) -> tuple[Callable[[], object], int]:
        # As many bytes as a step reads, so that they are in the same cache, or in none, as the weights.
        size = self.shape.bytes_read(self.precision)
        return torch.ones(size // 4).sum, size

    def sgemm(self) -> tuple[Callable[[], object], int]:
        one, other = torch.rand(2, SGEMM_SIZE, SGEMM_SIZE)
        out = torch.empty(SGEMM_SIZE, SGEMM_SIZE)
        return lambda: torch.mm(one, other, out=out), 2 * SGEMM_SIZE**3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--shape", type=Shape.parse, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", choices=("f32", "int8"), required=True)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    # Deprecations of TorchScript and of eager quantisation, which are two of the ways that are compared.
    for category in (DeprecationWarning, FutureWarning, UserWarning):
        warnings.filterwarnings("ignore", category=category)
    torch.set_num_threads(arguments.threads)
    # Entered once, since entering it for every step would be a part of every step.
    with torch.inference_mode():
        protocol.serve(PyTorch(arguments.shape, arguments.weights, arguments.precision, arguments.compile))


if __name__ == "__main__":
    main()
