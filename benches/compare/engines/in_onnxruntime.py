"""ONNX Runtime as an engine: `python -m engines.in_onnxruntime --weights FILE --shape V,E,H,L --threads N --precision
f32|int8`.

Knows how ONNX Runtime is given a session, states and quantisation, and nothing about who is compared with it; the graphs
are made by `engines.graphs`.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from engines import graphs, protocol
from engines.shapes import Shape
from engines.weights import tokens as random_tokens


class OnnxRuntime:
    """One session for each way to write the model down, made on its first use."""

    def __init__(self, shape: Shape, weights: Path, precision: str, threads: int) -> None:
        self.shape, self.weights, self.precision, self.threads = shape, weights, precision, threads
        self.sessions: dict[str, onnxruntime.InferenceSession] = {}

    def modes(self, kind: str) -> list[str]:
        return ["lstm", "cells"] if kind == "step" else ["lstm"]

    def prepare(self, mode: str, batch: int, length: int, carried: bool) -> protocol.Call:
        session = self.session(mode)
        tokens = random_tokens(self.shape.vocabulary, length, batch)
        # An OrtValue shares the memory of its array, so the logits are read without a copy.
        logits = numpy.empty((length, batch, self.shape.vocabulary), numpy.float32)
        # Two sets of states: what one call writes the next one reads, and nothing is copied.
        names = graphs.state_names(self.shape)
        states = [{name: numpy.zeros(self.state(batch), numpy.float32) for name in names} for _ in range(2)]
        bindings = []
        for reads, writes in (states, states[::-1]):
            binding = session.io_binding()
            binding.bind_ortvalue_input("tokens", shared(tokens))
            binding.bind_ortvalue_output("logits", shared(logits))
            for name in names:
                binding.bind_ortvalue_input(name, shared(reads[name]))
                binding.bind_ortvalue_output(graphs.after(name), shared(writes[name]))
            bindings.append(binding)
        turn = 0

        def call() -> numpy.ndarray:
            nonlocal turn
            session.run_with_iobinding(bindings[turn])
            # A call that starts from zero always reads the first set, which it never writes.
            turn = 1 - turn if carried else 0
            return logits

        return call

    def logits(self, mode: str, tokens: list[int]) -> numpy.ndarray:
        session = self.session(mode)
        names = graphs.state_names(self.shape)
        states = {name: numpy.zeros(self.state(1), numpy.float32) for name in names}
        logits = numpy.empty(0, numpy.float32)
        for token in tokens:
            inputs = {"tokens": numpy.array([[token]], numpy.int64), **states}
            logits, *after = session.run(["logits", *map(graphs.after, names)], inputs)
            states = dict(zip(names, after, strict=True))
        return logits[0, 0]

    def state(self, batch: int) -> tuple[int, int, int]:
        return (1, batch, self.shape.hidden)

    def session(self, mode: str) -> onnxruntime.InferenceSession:
        if mode not in self.sessions:
            self.sessions[mode] = self.make(mode)
        return self.sessions[mode]

    def make(self, mode: str) -> onnxruntime.InferenceSession:
        write = {"lstm": graphs.sequence, "cells": graphs.cells}[mode]
        with tempfile.TemporaryDirectory(dir=self.weights.parent) as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(write(self.shape, self.weights), path)
            if self.precision == "int8":
                quantize_dynamic(path, path, weight_type=QuantType.QInt8, op_types_to_quantize=["LSTM", "MatMul"])
            return onnxruntime.InferenceSession(path, options(self.threads), providers=["CPUExecutionProvider"])

    def bandwidth(self) -> tuple[Callable[[], object], int]:
        raise NotImplementedError("ONNX Runtime has no call that only reads")

    def sgemm(self) -> tuple[Callable[[], object], int]:
        raise NotImplementedError("PyTorch is the second opinion about this machine")


def options(threads: int) -> onnxruntime.SessionOptions:
    """Everything that ONNX Runtime can do to a graph, and threads that sleep when they have nothing to do."""
    chosen = onnxruntime.SessionOptions()
    chosen.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Errors only: a shape that is known at run time alone is not worth a warning.
    chosen.log_severity_level = 3
    return chosen


shared = onnxruntime.OrtValue.ortvalue_from_numpy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--shape", type=Shape.parse, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", choices=("f32", "int8"), required=True)
    arguments = parser.parse_args()
    # The quantiser recommends a preprocessing that infers shapes, of which nothing here depends.
    logging.getLogger().setLevel(logging.ERROR)
    protocol.serve(OnnxRuntime(arguments.shape, arguments.weights, arguments.precision, arguments.threads))


if __name__ == "__main__":
    main()
