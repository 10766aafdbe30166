"""Makes the golden numbers beside this file with PyTorch: run `python make.py` (needs torch and safetensors).

Each case is a small LSTM language model with random weights and 200 random tokens. CASE.json is the model's
config.json; CASE.safetensors holds the weights under their PyTorch names, the tokens (`golden.tokens`, int64 [200]),
and what PyTorch answers: `golden.logits`, f32 [200, V], whose row t holds the logits that token t is drawn from, and
`golden.nats`, f64 [2], the mean cross entropy of the whole text and of its `batchify` into 6 columns of 33 tokens, whose
first tokens are inputs only.
demo_MEMBER.safetensors has the same of a demo member, whose weights are of a real size: 200 tokens that it drew from
itself (`golden.tokens`) and the logits of every 16th token (`golden.logits`, [200, V / 16]).
Made with PyTorch 2.15.0 on a CPU, in f32, one thread.
"""

import json
import pathlib

import torch
from safetensors.torch import load_file, save_file

TOKENS = 200
LANES = 6

#        name                      V   E     H  L  tied   lstm_bias output_bias start
CASES = [
    ("one_layer_untied",          11,  5,    9, 1, False, True,  True,  "zero_state"),
    ("two_layers_tied_no_biases", 13,  8,    8, 2, True,  False, False, "zero_state"),
    ("three_layers_untied",       10, 12,    7, 3, False, True,  False, {"token": 3}),
    ("three_layers_tied",         12,  8,    8, 3, True,  True,  True,  {"token": 0}),
    ("two_layers_one_hot",        11, None,  8, 2, False, True,  True,  "zero_state"),
]


class LanguageModel(torch.nn.Module):
    def __init__(self, v, e, h, layers, tied, lstm_bias, output_bias):
        super().__init__()
        self.v = v
        self.embed = torch.nn.Embedding(v, e) if e else None
        self.rnn = torch.nn.LSTM(e or v, h, layers, bias=lstm_bias)
        self.linear = torch.nn.Linear(h, v, bias=output_bias)
        with torch.no_grad():
            # Larger than PyTorch's initial weights, so that gates saturate now and then.
            for parameter in self.rnn.parameters():
                parameter.mul_(3.0)
        if tied:
            self.linear.weight = self.embed.weight

    def forward(self, tokens):
        """Hidden vectors [time, (lanes,) H] of tokens [time, (lanes)]."""
        inputs = self.embed(tokens) if self.embed else torch.nn.functional.one_hot(tokens, self.v).float()
        hidden, _ = self.rnn(inputs)
        return hidden


def nats_in_lanes(model, tokens, start):
    """As https://github.com/pytorch/examples/tree/main/word_language_model evaluates."""
    columns = tokens[: TOKENS // LANES * LANES].view(LANES, -1).t()
    inputs, targets = columns[:-1], columns[1:]
    if start != "zero_state":
        inputs = torch.cat([torch.full((1, LANES), start["token"]), inputs])
    logits = model.linear(model(inputs)[-len(targets):])
    return torch.nn.functional.cross_entropy(logits.double().flatten(0, 1), targets.flatten())


def make(index, name, v, e, h, layers, tied, lstm_bias, output_bias, start, folder):
    torch.manual_seed(index)
    model = LanguageModel(v, e, h, layers, tied, lstm_bias, output_bias)
    tokens = torch.randint(0, v, (TOKENS,))
    with torch.no_grad():
        if start == "zero_state":
            hidden = torch.cat([torch.zeros(1, h), model(tokens[:-1])])
        else:
            hidden = model(torch.cat([torch.tensor([start["token"]]), tokens[:-1]]))
        logits = model.linear(hidden)
        nats = torch.nn.functional.cross_entropy(logits.double(), tokens), nats_in_lanes(model, tokens, start)
    tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
    if tied:
        del tensors["linear.weight"]
    tensors |= {"golden.tokens": tokens, "golden.logits": logits.contiguous(), "golden.nats": torch.stack(nats)}
    save_file(tensors, folder / f"{name}.safetensors")
    config = {
        "format": 1, "name": name, "vocab_size": v, "embedding_size": e, "hidden_size": h, "layers": layers,
        "tied": tied, "lstm_bias": lstm_bias, "output_bias": output_bias, "start": start, "end": None,
    }
    (folder / f"{name}.json").write_text(json.dumps(config, indent=2) + "\n")


def make_of_demo(name, folder):
    torch.manual_seed(0)
    demo = folder.parents[2] / "deploy/demo" / name
    config = json.loads((demo / "config.json").read_text())
    shape = [config[key] for key in ("vocab_size", "embedding_size", "hidden_size", "layers", "tied", "lstm_bias", "output_bias")]
    model = LanguageModel(*shape)
    weights = {key: value.float() for key, value in load_file(demo / "model.safetensors").items()}
    if config["tied"]:
        weights["linear.weight"] = weights["embed.weight"]
    model.load_state_dict(weights)
    tokens, logits = [], []
    state, token = None, config["start"]["token"]
    with torch.no_grad():
        for _ in range(TOKENS):
            hidden, state = model.rnn(model.embed(torch.tensor([token])), state)
            logits.append(model.linear(hidden)[0])
            token = torch.multinomial(torch.softmax(logits[-1], 0), 1).item()
            tokens.append(token)
    tensors = {"golden.tokens": torch.tensor(tokens), "golden.logits": torch.stack(logits)[:, ::16].contiguous()}
    save_file(tensors, folder / f"demo_{name}.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = pathlib.Path(__file__).resolve().parent
    for index, case in enumerate(CASES):
        make(index, *case, folder)
    for name in ("alto", "bass", "tenor"):
        make_of_demo(name, folder)
