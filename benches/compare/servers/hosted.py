"""One member in this process: the model in ONNX Runtime or PyTorch, and the states of its sessions.

Knows nothing about other members or about how requests arrive.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy

from engines.shapes import Shape
from servers import fusion
from servers.models import SHAPE, START

LIBRARIES = ("onnxruntime", "torch")
# Sessions that a member has room for.
SLOTS = 256


class Model(Protocol):
    """Tokens i64 [T, B] and states f32 [L, B, H] to logits f32 [T, B, V] and the states behind the last token."""

    def __call__(
        self, tokens: numpy.ndarray, h: numpy.ndarray, c: numpy.ndarray
    ) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]: ...


@dataclass(frozen=True)
class Group:
    """Sessions that read equally many tokens at once."""

    # [B]; a session that is fresh starts from the start token.
    slots: numpy.ndarray
    fresh: bool
    # i32 [T, B].
    tokens: numpy.ndarray


def load(directory: Path, library: str, threads: int) -> Model:
    path = directory / "model.safetensors"
    return onnx_model(path, SHAPE, threads) if library == "onnxruntime" else torch_model(path, SHAPE, threads)


def onnx_model(path: Path, shape: Shape, threads: int) -> Model:
    import onnxruntime

    from engines import graphs
    from engines.in_onnxruntime import options

    model = graphs.sequence(shape, path).SerializeToString()
    session = onnxruntime.InferenceSession(model, options(threads), providers=["CPUExecutionProvider"])
    names = graphs.state_names(shape)
    outputs = ["logits", *map(graphs.after, names)]

    def run(tokens: numpy.ndarray, h: numpy.ndarray, c: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        inputs = {"tokens": tokens}
        for layer in range(shape.layers):
            inputs[f"h{layer}"], inputs[f"c{layer}"] = h[layer : layer + 1], c[layer : layer + 1]
        logits, *states = session.run(outputs, inputs)
        return logits, numpy.concatenate(states[::2]), numpy.concatenate(states[1::2])

    return run


def torch_model(path: Path, shape: Shape, threads: int) -> Model:
    import torch
    from safetensors.torch import load_file

    from engines.in_pytorch import Cells, Network

    torch.set_num_threads(threads)
    network = Network(shape).eval().requires_grad_(False)
    network.load_state_dict(load_file(path))
    # The fastest of PyTorch's ways at this shape (see `compare engines`): cells for a step, TorchScript for a sequence.
    cells = Cells(network, shape)
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        scripted = torch.jit.freeze(torch.jit.script(network))

    def run(tokens: numpy.ndarray, h: numpy.ndarray, c: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        model = cells if len(tokens) == 1 else scripted
        with torch.inference_mode():
            logits, state = model(torch.from_numpy(tokens), (torch.from_numpy(h), torch.from_numpy(c)))
        return logits.numpy(), state[0].numpy(), state[1].numpy()

    return run


class Hosted:
    """A model and its sessions."""

    def __init__(self, directory: Path, library: str, threads: int) -> None:
        self.model = load(directory, library, threads)
        self.h = numpy.zeros((SHAPE.layers, SLOTS, SHAPE.hidden), numpy.float32)
        self.c = numpy.zeros_like(self.h)

    def step(self, groups: list[Group]) -> list[numpy.ndarray]:
        """Feeds every group and gives its next-token probabilities, [B, V]. Groups of the same kind are one batch."""
        answers: list[numpy.ndarray] = [numpy.empty(0, numpy.float32)] * len(groups)
        kinds: dict[tuple[int, bool], list[int]] = {}
        for index, group in enumerate(groups):
            kinds.setdefault((len(group.tokens), group.fresh), []).append(index)
        for (_, fresh), members in kinds.items():
            slots = numpy.concatenate([groups[index].slots for index in members])
            tokens = numpy.concatenate([groups[index].tokens for index in members], axis=1)
            rows = self.feed(slots, tokens, fresh)
            bounds = numpy.cumsum([len(groups[index].slots) for index in members])[:-1]
            for index, part in zip(members, numpy.split(rows, bounds), strict=True):
                answers[index] = part
        return answers

    def feed(self, slots: numpy.ndarray, tokens: numpy.ndarray, fresh: bool) -> numpy.ndarray:
        tokens = tokens.astype(numpy.int64)
        if fresh:
            tokens = started(tokens)
            h = c = zeros(len(slots))
        else:
            h, c = self.h[:, slots], self.c[:, slots]
        logits, self.h[:, slots], self.c[:, slots] = self.model(tokens, h, c)
        return fusion.softmax(logits[-1])

    def score(self, texts: list[numpy.ndarray]) -> list[numpy.ndarray]:
        """The log-probability of every token of every batch of texts, each [T, B]. Texts of one length are one batch."""
        answers: list[numpy.ndarray] = [numpy.empty(0, numpy.float32)] * len(texts)
        for length in {len(text) for text in texts}:
            members = [index for index, text in enumerate(texts) if len(text) == length]
            rows = self.log_probabilities(numpy.concatenate([texts[index] for index in members], axis=1))
            bounds = numpy.cumsum([texts[index].shape[1] for index in members])[:-1]
            for index, part in zip(members, numpy.split(rows, bounds, axis=1), strict=True):
                answers[index] = part
        return answers

    def log_probabilities(self, tokens: numpy.ndarray) -> numpy.ndarray:
        targets = tokens.astype(numpy.int64)
        zero = zeros(targets.shape[1])
        logits, _, _ = self.model(started(targets)[:-1], zero, zero)
        return fusion.log_probabilities_of(logits, targets)


def started(tokens: numpy.ndarray) -> numpy.ndarray:
    """The start token, then these: [T, B] to [T + 1, B]."""
    return numpy.concatenate([numpy.full((1, tokens.shape[1]), START, numpy.int64), tokens])


def zeros(batch: int) -> numpy.ndarray:
    return numpy.zeros((SHAPE.layers, batch, SHAPE.hidden), numpy.float32)
