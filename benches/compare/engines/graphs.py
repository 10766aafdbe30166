"""The model as ONNX graphs, written by hand. Knows ONNX's operators, and nothing about who runs them.

Inputs: `tokens` i64 [T, B] and for every layer `h{l}` and `c{l}` f32 [1, B, H]. Outputs: `logits` f32 [T, B, V] and the
states behind the last token.
"""

from __future__ import annotations

from pathlib import Path

import numpy
from onnx import ModelProto, TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from engines.shapes import Shape

OPSET = 17
IR_VERSION = 8


def state_names(shape: Shape) -> list[str]:
    return [f"{part}{layer}" for layer in range(shape.layers) for part in ("h", "c")]


def after(name: str) -> str:
    """The output that a state's input becomes."""
    return f"{name}_after"


def sequence(shape: Shape, weights: Path) -> ModelProto:
    """Whole sequences through ONNX's LSTM operator."""
    graph = Graph(shape, load_file(weights))
    value = graph.node("Gather", ["embed.weight", "tokens"])
    graph.constant("directions", numpy.array([1], numpy.int64))
    for layer in range(shape.layers):
        names = graph.lstm_weights(layer)
        inputs = [value, *names, "", f"h{layer}", f"c{layer}"]
        outputs = [f"y{layer}", after(f"h{layer}"), after(f"c{layer}")]
        graph.nodes.append(helper.make_node("LSTM", inputs, outputs, hidden_size=shape.hidden))
        value = graph.node("Squeeze", [f"y{layer}", "directions"])
    graph.output_layer(value)
    return graph.model()


def cells(shape: Shape, weights: Path) -> ModelProto:
    """One token (T = 1) through plain operators: a matrix product over [x, h] and the gates, for each layer."""
    graph = Graph(shape, load_file(weights))
    graph.constant("time", numpy.array([0], numpy.int64))
    value = graph.node("Gather", ["embed.weight", graph.node("Squeeze", ["tokens", "time"])])
    for layer in range(shape.layers):
        h, c = (graph.node("Squeeze", [f"{part}{layer}", "time"]) for part in ("h", "c"))
        weight, bias = graph.cell_weights(layer)
        product = graph.node("MatMul", [graph.node("Concat", [value, h], axis=1), weight])
        gates = graph.node("Add", [product, bias])
        i, f, g, o = graph.split(gates, 4)
        kept = graph.node("Mul", [graph.node("Sigmoid", [f]), c])
        written = graph.node("Mul", [graph.node("Sigmoid", [i]), graph.node("Tanh", [g])])
        c = graph.node("Add", [kept, written])
        value = graph.node("Mul", [graph.node("Sigmoid", [o]), graph.node("Tanh", [c])])
        for part, state in (("h", value), ("c", c)):
            graph.nodes.append(helper.make_node("Unsqueeze", [state, "time"], [after(f"{part}{layer}")]))
    graph.output_layer(graph.node("Unsqueeze", [value, "time"]))
    return graph.model()


class Graph:
    """Nodes and constants as they come, with names that are counted up."""

    def __init__(self, shape: Shape, weights: dict[str, numpy.ndarray]) -> None:
        self.shape, self.weights = shape, weights
        self.nodes: list[object] = []
        self.constants: list[TensorProto] = []
        self.constant("embed.weight", weights["embed.weight"])

    def constant(self, name: str, values: numpy.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(numpy.ascontiguousarray(values), name))
        return name

    def node(self, operator: str, inputs: list[str], **attributes: object) -> str:
        return self.split_node(operator, inputs, 1, **attributes)[0]

    def split(self, value: str, parts: int) -> list[str]:
        return self.split_node("Split", [value], parts, axis=1)

    def split_node(self, operator: str, inputs: list[str], outputs: int, **attributes: object) -> list[str]:
        names = [f"{operator}_{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, **attributes))
        return names

    def lstm_weights(self, layer: int) -> list[str]:
        """W, R and B of the LSTM operator, whose gates come in the order i, o, f, c: PyTorch's is i, f, g, o."""
        tensors = self.layer_tensors(layer)
        ih, hh, bias_ih, bias_hh = (numpy.concatenate([numpy.split(t, 4)[gate] for gate in (0, 3, 1, 2)]) for t in tensors)
        return [
            self.constant(f"W{layer}", ih[None]),
            self.constant(f"R{layer}", hh[None]),
            self.constant(f"B{layer}", numpy.concatenate([bias_ih, bias_hh])[None]),
        ]

    def cell_weights(self, layer: int) -> tuple[str, str]:
        """One matrix over [x, h], and one bias."""
        ih, hh, bias_ih, bias_hh = self.layer_tensors(layer)
        weight = self.constant(f"W{layer}", numpy.concatenate([ih, hh], axis=1).T)
        return weight, self.constant(f"B{layer}", bias_ih + bias_hh)

    def layer_tensors(self, layer: int) -> list[numpy.ndarray]:
        return [self.weights[f"rnn.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]

    def output_layer(self, value: str) -> None:
        self.constant("output", self.weights["linear.weight"].T)
        self.constant("output_bias", self.weights["linear.bias"])
        product = self.node("MatMul", [value, "output"])
        self.nodes.append(helper.make_node("Add", [product, "output_bias"], ["logits"]))

    def model(self) -> ModelProto:
        state = [1, "B", self.shape.hidden]
        inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["T", "B"])]
        outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["T", "B", self.shape.vocabulary])]
        for name in state_names(self.shape):
            inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, state))
            outputs.append(helper.make_tensor_value_info(after(name), TensorProto.FLOAT, state))
        graph = helper.make_graph(self.nodes, "language_model", inputs, outputs, self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
