"""Asks for the distributions after 64 texts by tritonclient, as a list of numbers: python rows.py HOST:PORT"""

import sys

import numpy as np
import tritonclient.grpc as triton

client = triton.InferenceServerClient(sys.argv[1])
texts = np.array([[b"ROMEO: " + b"I " * number] for number in range(64)], dtype=np.object_)
text = triton.InferInput("text", [64, 1], "BYTES").set_data_from_numpy(texts)
answer = client.infer("ensemble", [text], outputs=[triton.InferRequestedOutput("next_probs")], client_timeout=60)
probs = answer.as_numpy("next_probs")
assert probs.shape[0] == 64 and (probs > 0).any(), probs
print(" ".join(map(str, probs.ravel())))
client.close()
