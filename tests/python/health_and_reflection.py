"""Reflection and health of a running ensemble by grpcio's own clients: python health_and_reflection.py HOST:PORT

Watches every service and says SERVING, NOT_SERVING, SERVING, each when all of them were seen to be so."""

import itertools
import sys
import threading

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(sys.argv[1])
database = ProtoReflectionDescriptorDatabase(channel)
services = set(database.get_services())
assert {"chorus.v1.Ensemble", "inference.GRPCInferenceService", "grpc.health.v1.Health"} <= services, services
pool = DescriptorPool(database)
for service, method in [("chorus.v1.Ensemble", "Generate"), ("inference.GRPCInferenceService", "ModelStreamInfer")]:
    described = pool.FindServiceByName(service).methods_by_name[method]
    assert described.server_streaming, described
request = pool.FindMessageTypeByName("inference.ModelInferRequest")
assert request.fields_by_name["raw_input_contents"].number == 7

health = health_pb2_grpc.HealthStub(channel)
names = ["", "chorus.v1.Ensemble", "inference.GRPCInferenceService"]
expected = ["SERVING", "NOT_SERVING", "SERVING"]
# Everybody who watches, and whoever tells of it.
seen = threading.Barrier(len(names) + 1, timeout=60)


def watch(service):
    try:
        replies = health.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)
        statuses = (health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status) for reply in replies)
        # It may have begun a moment ago.
        for status, name in zip(expected, itertools.dropwhile("NOT_SERVING".__eq__, statuses)):
            assert name == status, (service, name)
            seen.wait()
    except BaseException:
        seen.abort()
        raise


for name in names:
    threading.Thread(target=watch, args=(name,), daemon=True).start()
for status in expected:
    seen.wait()
    print(status, flush=True)
