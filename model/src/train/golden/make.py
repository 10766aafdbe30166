"""Makes the golden numbers beside this file with PyTorch: run `python make.py` (needs torch and safetensors).

Each CASE.safetensors holds a token stream (`tokens`, int64 [N]), weights before training (`before.NAME`) and after
STEPS steps of truncated back-propagation through time (`after.NAME`), under PyTorch's names. The stream begins with the
start token and is cut into BATCH lanes, which are read in blocks of TIME tokens; the state is carried from block to
block and is zero at the beginning of each epoch. The loss is the mean over all tokens of a block.
In lines.safetensors `tokens` are lines of `lengths`, each of which begins with so many tokens of `contexts`. Every line is
read by itself from the start token and a zero state, and all lines are one batch: the loss is the mean over what stands
after the contexts, the end tokens included, and over the contexts' tokens, which count CONTEXT_WEIGHT each.
Made with PyTorch 2.15.0 on a CPU, in f32, one thread.
"""

import math
import pathlib

import torch
from safetensors.torch import save_file

V, E, H = 7, 5, 6
TOKENS, BATCH, TIME, STEPS, EPOCHS = 160, 4, 8, 12, 3

#        name    optimizer  rate   clip  layers tied   cosine
CASES = [
    ("adam", "adam", 0.02, 1.0, 2, True, True),
    ("sgd", "sgd", 2.0, 0.25, 1, False, False),
]


START, END, CONTEXT_WEIGHT = 0, 6, 0.3
LENGTHS, CONTEXTS = [3, 9, 1, 5, 6], [1, 4, 0, 5, 2]


def train_lines(embed, rnn, linear, lines, optimizer, clip):
    learned = sum(len(line) + 1 - context for line, context in zip(lines, CONTEXTS))
    weight = learned + CONTEXT_WEIGHT * sum(CONTEXTS)
    for _ in range(STEPS):
        loss = 0
        for line, context in zip(lines, CONTEXTS):
            inputs, targets = torch.cat([torch.tensor([START]), line]), torch.cat([line, torch.tensor([END])])
            hidden, _ = rnn(embed(inputs)[:, None])
            nats = torch.nn.functional.cross_entropy(linear(hidden[:, 0]), targets, reduction="none")
            loss = loss + (CONTEXT_WEIGHT * nats[:context].sum() + nats[context:].sum()) / weight
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip)
        optimizer.step()


def make_lines():
    torch.manual_seed(1)
    embed, rnn, linear = torch.nn.Embedding(V, E), torch.nn.LSTM(E, H, 2), torch.nn.Linear(H, V)
    model = torch.nn.ModuleDict({"embed": embed, "rnn": rnn, "linear": linear})
    weights = lambda when: {f"{when}.{k}": v.clone() for k, v in model.state_dict().items()}
    lines = [torch.randint(1, END, (length,)) for length in LENGTHS]
    before = weights("before")
    train_lines(embed, rnn, linear, lines, torch.optim.Adam(list(model.parameters()), lr=0.02), 0.5)
    tensors = {"tokens": torch.cat(lines), "lengths": torch.tensor(LENGTHS), "contexts": torch.tensor(CONTEXTS)}
    save_file(before | weights("after") | tensors, pathlib.Path(__file__).resolve().parent / "lines.safetensors")


def train(embed, rnn, linear, stream, optimizer, clip, cosine, rate):
    parameters = optimizer.param_groups[0]["params"]
    length = (len(stream) - 1) // BATCH
    lanes = [slice(lane * length, (lane + 1) * length) for lane in range(BATCH)]
    inputs = torch.stack([stream[:-1][lane] for lane in lanes]).t()
    targets = torch.stack([stream[1:][lane] for lane in lanes]).t()
    steps_per_epoch = math.ceil(length / TIME)
    state = None
    for step in range(STEPS):
        at = step % steps_per_epoch * TIME
        if at == 0:
            state = None
        if cosine:
            progress = step / (steps_per_epoch * EPOCHS)
            optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * progress))
        hidden, state = rnn(embed(inputs[at : at + TIME]), state)
        state = tuple(part.detach() for part in state)
        logits = linear(hidden).flatten(0, 1)
        loss = torch.nn.functional.cross_entropy(logits, targets[at : at + TIME].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()


def make(name, kind, rate, clip, layers, tied, cosine):
    torch.manual_seed(1)
    hidden = E if tied else H
    embed, rnn = torch.nn.Embedding(V, E), torch.nn.LSTM(E, hidden, layers)
    linear = torch.nn.Linear(hidden, V)
    if tied:
        linear.weight = embed.weight
    model = torch.nn.ModuleDict({"embed": embed, "rnn": rnn, "linear": linear})
    weights = lambda: {k: v.clone() for k, v in model.state_dict().items() if not (tied and k == "linear.weight")}
    tokens = torch.randint(0, V, (TOKENS,))
    before = weights()
    optimizer = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[kind](list(model.parameters()), lr=rate)
    train(embed, rnn, linear, torch.cat([torch.tensor([0]), tokens]), optimizer, clip, cosine, rate)
    tensors = {f"before.{key}": value for key, value in before.items()}
    tensors |= {f"after.{key}": value for key, value in weights().items()}
    save_file(tensors | {"tokens": tokens}, pathlib.Path(__file__).resolve().parent / f"{name}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in CASES:
        make(*case)
    make_lines()
