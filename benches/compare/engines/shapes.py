"""The shapes that are compared, and what a step of each has to read and compute. Knows nothing about engines."""

from __future__ import annotations

from dataclasses import dataclass

PRECISIONS = ("f32", "int8", "bf16")
BYTES_PER_WEIGHT = {"f32": 4, "int8": 1, "bf16": 2}


@dataclass(frozen=True)
class Shape:
    """An LSTM language model: embedding, LSTM layers, output layer with a bias."""

    vocabulary: int
    embedding: int
    hidden: int
    layers: int

    @staticmethod
    def parse(text: str) -> "Shape":
        """Reads `V,E,H,L`.

        Raises ValueError where that is not four positive numbers.
        """
        numbers = [int(number) for number in text.split(",")]
        if len(numbers) != 4 or min(numbers) < 1:
            raise ValueError(f"a shape is V,E,H,L, four positive numbers, not {text!r}")
        return Shape(*numbers)

    def __str__(self) -> str:
        return f"V{self.vocabulary} E{self.embedding} H{self.hidden} L{self.layers}"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the weights file, with the names of PyTorch's `state_dict`."""
        gates = 4 * self.hidden
        shapes: dict[str, tuple[int, ...]] = {"embed.weight": (self.vocabulary, self.embedding)}
        for layer in range(self.layers):
            inputs = self.embedding if layer == 0 else self.hidden
            shapes[f"rnn.weight_ih_l{layer}"] = (gates, inputs)
            shapes[f"rnn.weight_hh_l{layer}"] = (gates, self.hidden)
            shapes[f"rnn.bias_ih_l{layer}"] = (gates,)
            shapes[f"rnn.bias_hh_l{layer}"] = (gates,)
        shapes["linear.weight"] = (self.vocabulary, self.hidden)
        shapes["linear.bias"] = (self.vocabulary,)
        return shapes

    def multiplied(self) -> int:
        """The elements of all matrices that a step multiplies with: everything but the embedding and the biases."""
        matrices = [size for name, size in self.tensors().items() if len(size) == 2 and name != "embed.weight"]
        return sum(rows * columns for rows, columns in matrices)

    def bytes_read(self, precision: str) -> int:
        """The least that a step has to read, whatever the batch: each of those elements once."""
        return self.multiplied() * BYTES_PER_WEIGHT[precision]

    def flops(self, rows: int) -> int:
        """Multiplications and additions of `rows` rows of one step each."""
        return 2 * self.multiplied() * rows


SMALL = Shape(256, 128, 256, 1)
MEDIUM = Shape(10_000, 650, 650, 2)
LARGE = Shape(33_278, 1_500, 1_500, 2)
