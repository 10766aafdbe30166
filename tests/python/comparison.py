"""The client of benches/compare asks a running ensemble: python comparison.py HOST:PORT FOLDER, where it writes modules."""

import sys
from pathlib import Path

import grpc

sys.path[:0] = [sys.argv[2], str(Path(__file__).resolve().parents[2] / "benches" / "compare")]

from servers import generated

generated.write(Path(sys.argv[2]))

from chorus.v1 import ensemble_pb2
from servers import wire

channel = grpc.insecure_channel(sys.argv[1])
complete = channel.unary_unary("/chorus.v1.Ensemble/Complete")
score = channel.unary_unary("/chorus.v1.Ensemble/Score")

reply = ensemble_pb2.ScoreReply.FromString(score(wire.score_request([1, 2, 3]).SerializeToString(), timeout=60))
assert reply.tokens == 3 and reply.log_prob < 0, reply
request = wire.generate_request([1, 2, 3], 4).SerializeToString()
reply = ensemble_pb2.CompleteReply.FromString(complete(request, timeout=60))
assert reply.end.generated_tokens == 4, reply

# The rivals' side: they read what the client sends, and answer in the same words.
request = ensemble_pb2.GenerateRequest.FromString(request)
assert wire.input_tokens(request.prompt) == [1, 2, 3] and request.max_tokens == 4, request
assert wire.complete_reply([1, 2, 3], [7, 8]).end.generated_tokens == 2
assert wire.score_reply([1, 2, 3], -2.5).log_prob == -2.5
assert wire.status_reply().serving
print("all is well")
