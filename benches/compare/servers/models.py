"""The three members: small LSTMs with random weights, in directories that `chorus up` and every other system read.

Knows the files of a model directory, and nothing about who serves them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from engines import weights
from engines.shapes import SMALL, Shape

NAMES = ("alto", "bass", "tenor")
SHAPE = SMALL
# Fed before a sequence, so that its first token has a distribution too.
START = 0
# A token is one character from here on, so that a text says exactly which tokens it has.
FIRST_CHARACTER = 0x100


@dataclass(frozen=True)
class Member:
    """A model directory, and the member's share of the weighted average."""

    directory: Path
    weight: float


def write(folder: Path, seed: int, shape: Shape = SHAPE) -> None:
    """Writes one directory for each member; the same seed gives the same files."""
    for number, name in enumerate(NAMES):
        directory = folder / name
        directory.mkdir(parents=True)
        weights.write(directory / "model.safetensors", shape, seed + number)
        (directory / "config.json").write_text(json.dumps(config(name, shape), indent=2))
        (directory / "tokenizer.json").write_text(json.dumps(tokenizer(shape.vocabulary)))


def read(folder: Path) -> list[Member]:
    """The members in the order of their names, which is the order of fusion, with equal weights."""
    return [Member(folder / name, 1 / len(NAMES)) for name in sorted(NAMES)]


def text(tokens: list[int]) -> str:
    return "".join(character(token) for token in tokens)


def character(token: int) -> str:
    """Of a token; those of the large vocabularies are beyond the surrogates, which are no characters."""
    number = FIRST_CHARACTER + token
    return chr(number if number < 0xD800 else number + 0x800)


def tokens(of: str) -> list[int]:
    numbers = [ord(letter) for letter in of]
    return [number - FIRST_CHARACTER - (0x800 if number >= 0xE000 else 0) for number in numbers]


def config(name: str, shape: Shape) -> dict[str, object]:
    return {
        "format": 1,
        "name": name,
        "vocab_size": shape.vocabulary,
        "embedding_size": shape.embedding,
        "hidden_size": shape.hidden,
        "layers": shape.layers,
        "tied": False,
        "lstm_bias": True,
        "output_bias": True,
        "start": {"token": START},
        "end": None,
    }


def tokenizer(vocabulary: int) -> dict[str, object]:
    """One token for each character: BPE without merges, as Hugging Face's tokenizers write it."""
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {character(token): token for token in range(vocabulary)},
        "merges": [],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": model,
    }
