"""A coordinator in mutual TLS that wants tokens, by tritonclient and grpcio as they are: python secured.py HOST:PORT CA CERTIFICATE KEY TOKEN"""

import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.utils import InferenceServerException

address, *files, token = sys.argv[1:]
ca, certificate, key = files
bearer = {"authorization": f"Bearer {token}"}


def client(**named):
    return triton.InferenceServerClient(address, ssl=True, root_certificates=ca, **named)


def refused(words, status, call):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{status}" and words in error.message(), error
    else:
        raise AssertionError(f"not refused: {words}")


def infer(known, **named):
    text = triton.InferInput("text", [1], "BYTES").set_data_from_numpy(np.array([b"ROMEO:"], dtype=np.object_))
    answer = known.infer("ensemble", [text], parameters={"max_tokens": 3}, client_timeout=60, **named)
    return answer.as_numpy("generated_text")[0]


known = client(private_key=key, certificate_chain=certificate)
assert known.is_server_ready(headers=bearer)
assert infer(known, headers=bearer)
refused("there is no token", "UNAUTHENTICATED", lambda: infer(known))
refused("nobody knows this token", "UNAUTHENTICATED", lambda: infer(known, headers={"authorization": "Bearer who-who-who"}))
# Who shows no certificate does not even get a connection.
refused("", "UNAVAILABLE", lambda: infer(client(), headers=bearer))

shown = [open(path, "rb").read() for path in (ca, key, certificate)]
with_token = grpc.composite_channel_credentials(
    grpc.ssl_channel_credentials(*shown), grpc.access_token_call_credentials(token)
)
services = ProtoReflectionDescriptorDatabase(grpc.secure_channel(address, with_token)).get_services()
assert "chorus.v1.Ensemble" in services, services
print("all is well")
