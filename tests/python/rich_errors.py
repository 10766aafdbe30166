"""What grpcio-status reads in the errors of a running ensemble: python rich_errors.py HOST:PORT"""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

channel = grpc.insecure_channel(sys.argv[1])
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
Request = GetMessageClass(pool.FindMessageTypeByName("chorus.v1.GenerateRequest"))
complete = channel.unary_unary("/chorus.v1.Ensemble/Complete", request_serializer=Request.SerializeToString)


def details(request, code):
    """Those of the error that the request ends with, by their kinds."""
    try:
        complete(request, timeout=60)
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        assert status is not None and error.code() == code, error
        kinds = [error_details_pb2.BadRequest, error_details_pb2.ErrorInfo]
        found = {}
        for packed in status.details:
            kind = next(kind for kind in kinds if packed.Is(kind.DESCRIPTOR))
            found[kind] = kind()
            assert packed.Unpack(found[kind])
        return found
    raise AssertionError("not refused")


request = Request(max_tokens=0)
request.prompt.text = "ROMEO:"
request.sampling.temperature = -1
found = details(request, grpc.StatusCode.INVALID_ARGUMENT)
fields = {violation.field: violation.description for violation in found[error_details_pb2.BadRequest].field_violations}
assert fields and all("allowed" in description for description in fields.values()), fields
info = found[error_details_pb2.ErrorInfo]
assert (info.domain, info.reason) == ("chorus", "INVALID_ARGUMENT"), info
print("all is well")
