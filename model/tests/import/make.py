"""Makes the PyTorch files that the tests in this folder read. Run with PyTorch 2: `python make.py` in this folder.

Every number is exact in all floating point types: element i of the tensor with the number n is
((7 * i + n) % 13 - 6) / 8, counted row by row.
"""

import collections

import torch

V, H = 5, 3


def tensor(number, *shape, dtype=torch.float32):
    count = torch.Size(shape).numel()
    values = [((7 * i + number) % 13 - 6) / 8 for i in range(count)]
    return torch.tensor(values, dtype=dtype).reshape(shape)


embedding = tensor(0, V, H, dtype=torch.float64)
# Two biases in one storage, as flatten_parameters leaves them; a transposed view; a parameter and a plain tensor.
biases = torch.cat([tensor(3, 4 * H), tensor(4, 4 * H)])
state = collections.OrderedDict(
    [
        ("module.encoder.weight", embedding),
        ("module.LSTM.weight_ih_l0", torch.nn.Parameter(tensor(1, 4 * H, H))),
        ("module.LSTM.weight_hh_l0", tensor(2, 4 * H, H).t().contiguous().t()),
        ("module.LSTM.bias_ih_l0", biases[: 4 * H]),
        ("module.LSTM.bias_hh_l0", biases[4 * H :]),
        ("module.LSTM.weight_ih_l1", tensor(5, 4 * H, H, dtype=torch.float16)),
        ("module.LSTM.weight_hh_l1", tensor(6, 4 * H, H, dtype=torch.bfloat16)),
        ("module.LSTM.bias_ih_l1", tensor(7, 4 * H)),
        ("module.LSTM.bias_hh_l1", tensor(8, 4 * H)),
        ("module.decoder.weight", embedding),
        ("module.decoder.bias", tensor(9, V)),
    ]
)
state._metadata = {"": {"version": 1}}
optimizer = {"state": {0: {"step": 3, "exp_avg": tensor(1, 2)}}, "param_groups": [{"lr": 0.001, "params": [0]}]}
# A saved loss is a tensor beside the dictionary; a seed may be a number of nine bytes.
beside = {"epoch": 3, "optimizer": optimizer, "loss": tensor(1, 1), "seed": 2**64 - 5}
torch.save(beside | {"model_state_dict": state}, "checkpoint.pt")

small = {"rnn.weight_ih_l0": tensor(1, 4 * H, V), "rnn.weight_hh_l0": tensor(2, 4 * H, H), "fc.weight": tensor(3, V, H)}
torch.save(small | {"fc.bias": torch.arange(V)}, "integers.pt")
torch.save(small, "old.pt", _use_new_zipfile_serialization=False)
torch.save(torch.nn.Linear(2, 1), "module.pt")
