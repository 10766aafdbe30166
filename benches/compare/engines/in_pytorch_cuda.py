"""PyTorch on an NVIDIA GPU as an engine: `python -m engines.in_pytorch_cuda --weights FILE --shape V,E,H,L --precision f32|bf16`.

Two ways: `lstm`, nn.LSTM with cuDNN as its users write it, and `graph`, the same recorded as a CUDA graph. Logits stay on
the device; a call ends when it is done there. Products in f32 are in f32: TF32 is off. Knows nothing about who is
compared with it.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from safetensors.torch import load_file

from engines import protocol
from engines.in_pytorch import Network, State
from engines.shapes import Shape
from engines.weights import tokens as random_tokens

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
# As large as those of the Rust engine (`examples/timed/device.rs`).
COPIED_BYTES = 1 << 30
SIZE = 8_192
CALLS = 4
# Calls before a graph is recorded, so that cuDNN and the allocator have what they need.
WARM_UP = 3


class PyTorch:
    """The modes of one precision on one device."""

    def __init__(self, shape: Shape, weights: Path, precision: str, device: torch.device) -> None:
        self.shape, self.device, self.dtype = shape, device, DTYPES[precision]
        network = Network(shape).eval().requires_grad_(False)
        network.load_state_dict(load_file(weights))
        self.network = network.to(device, self.dtype)
        self.network.rnn.flatten_parameters()

    def modes(self, kind: str) -> list[str]:
        return ["lstm", "graph"]

    def prepare(self, mode: str, batch: int, length: int, carried: bool) -> protocol.Call:
        tokens = torch.from_numpy(random_tokens(self.shape.vocabulary, length, batch)).to(self.device)
        zero = state = self.zero_state(batch)

        def forward() -> torch.Tensor:
            nonlocal state
            logits, after = self.network(tokens, state if carried else zero)
            state = after
            return logits

        def in_place() -> torch.Tensor:
            # A recorded call goes on from where it wrote.
            logits, after = self.network(tokens, zero)
            if carried:
                for own, other in zip(zero, after):
                    own.copy_(other)
            return logits

        call = recorded(in_place) if mode == "graph" else forward

        def timed() -> numpy.ndarray:
            logits = call()
            torch.cuda.synchronize()
            return logits

        return timed

    def logits(self, mode: str, tokens: list[int]) -> numpy.ndarray:
        state = self.zero_state(1)
        logits = torch.empty(0)
        for token in tokens:
            logits, state = self.network(torch.tensor([[token]], device=self.device), state)
        return logits.float().cpu().numpy()[0, 0]

    def zero_state(self, batch: int) -> State:
        zeros = torch.zeros(self.shape.layers, batch, self.shape.hidden, device=self.device, dtype=self.dtype)
        return zeros, zeros.clone()

    def bandwidth(self) -> tuple[Callable[[], object], int]:
        values = torch.ones(COPIED_BYTES // 4, device=self.device)
        target = torch.empty_like(values)
        return repeated(lambda: target.copy_(values)), CALLS * 2 * COPIED_BYTES

    def sgemm(self) -> tuple[Callable[[], object], int]:
        one, other = (torch.rand(SIZE, SIZE, device=self.device).sub(0.5).to(self.dtype) for _ in range(2))
        out = torch.empty_like(one)
        return repeated(lambda: torch.mm(one, other, out=out)), CALLS * 2 * SIZE**3


@dataclass(frozen=True)
class Recorded:
    """A graph, with all whose memory it uses: the tensors of `forward` go with it."""

    graph: torch.cuda.CUDAGraph
    forward: Callable[[], torch.Tensor]
    logits: torch.Tensor

    def __call__(self) -> torch.Tensor:
        self.graph.replay()
        return self.logits


def recorded(forward: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The same as one CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            forward()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = forward()

    return Recorded(graph, forward, logits)


def repeated(call: Callable[[], object]) -> Callable[[], None]:
    """Some calls between two looks at the clock, the first of all not counted."""
    call()
    torch.cuda.synchronize()

    def calls() -> None:
        for _ in range(CALLS):
            call()
        torch.cuda.synchronize()

    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--shape", type=Shape.parse, required=True)
    parser.add_argument("--precision", choices=tuple(DTYPES), required=True)
    parser.add_argument("--device", default="cuda")
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda", torch.device(arguments.device).index or 0)
    torch.cuda.set_device(device)
    # Where it is missing in this list, the weights are not made one piece, and cuDNN makes them so at every call.
    torch.backends.cudnn.CUDNN_TENSOR_DTYPES.add(torch.bfloat16)
    # That would be no comparison.
    warnings.filterwarnings("error", message=".*not part of single contiguous chunk.*")
    print(f"PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}", file=sys.stderr)
    with torch.inference_mode():
        protocol.serve(PyTorch(arguments.shape, arguments.weights, arguments.precision, device))


if __name__ == "__main__":
    main()
