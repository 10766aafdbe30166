"""The ensemble on Triton: `python -m servers.triton_server --models DIR --library onnxruntime|torch --wheel FOLDER`
writes a model repository, starts `tritonserver` on it and ends it again. `--repository FOLDER` only writes it, for a
Triton somewhere else.

Knows Triton's files and flags; what the models do is in `servers/triton`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

import grpc

from servers import models, work
from servers.hosted import LIBRARIES
from servers.life import announce, free_port, until_stopped
from servers.models import SHAPE

HERE = Path(__file__).resolve().parent
# Where the wheel has its server and its Python backend.
SERVER = Path("pytriton/tritonserver")
MAX_BATCH = 64
# How long a generation waits for others to go with it; callers that ask again at once come within this.
GATHER_MICROSECONDS = 1_000
READY_SECONDS = 60
SHARED_MEMORY_BYTES = 64 << 20

FLOAT, DOUBLE, INTEGER = "TYPE_FP32", "TYPE_FP64", "TYPE_INT32"


def write_repository(folder: Path, directory: Path, library: str) -> None:
    """One model for each member and kind of work, and one ensemble for each kind of work."""
    members = models.read(directory)
    for member in members:
        name, parameters = member.directory.name, {"directory": str(member.directory), "library": library}
        tokens, sessions = ("TOKENS", INTEGER, [-1]), [("SLOTS", INTEGER, [1]), ("FRESH", INTEGER, [1])]
        rows = [("PROBABILITIES", FLOAT, [SHAPE.vocabulary])]
        write_model(folder, name, "step", [tokens, *sessions], rows, parameters)
        write_model(folder, f"{name}_texts", "texts", [tokens], [("LOG_PROBABILITIES", FLOAT, [-1])], parameters)
    names = [member.directory.name for member in members]
    asked = [("INPUT", INTEGER, [-1])]
    parameters = {"members": ",".join(names), "count": str(work.GENERATED_TOKENS)}
    write_model(folder, work.GENERATE, "generate", asked, [("TOKENS", INTEGER, [-1])], parameters, GATHER_MICROSECONDS)
    parameters = {"members": ",".join(f"{name}_texts" for name in names)}
    write_model(folder, work.SCORE, "score", asked, [("LOG_PROBABILITY", DOUBLE, [1])], parameters)


def write_model(
    folder: Path,
    name: str,
    source: str,
    inputs: list[tuple[str, str, list[int]]],
    outputs: list[tuple[str, str, list[int]]],
    parameters: dict[str, str],
    gather: int = 0,
) -> None:
    (folder / name / "1").mkdir(parents=True)
    # Triton's Python ignores PYTHONPATH, so that every model says where its modules are.
    code = f"import sys\n\nsys.path[:0] = {packages()}\nfrom servers.triton.{source} import TritonPythonModel\n"
    (folder / name / "1" / "model.py").write_text(code)
    lines = ['backend: "python"', f"max_batch_size: {MAX_BATCH}"]
    lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {gather} }}")
    lines.append("instance_group [ { kind: KIND_CPU, count: 1 } ]")
    for kind, tensors in (("input", inputs), ("output", outputs)):
        lines += [f'{kind} [ {{ name: "{tensor}", data_type: {of}, dims: {dims} }} ]' for tensor, of, dims in tensors]
    for key, value in parameters.items():
        lines.append(f'parameters {{ key: "{key}", value: {{ string_value: "{value}" }} }}')
    (folder / name / "config.pbtxt").write_text("\n".join(lines) + "\n")


def packages() -> list[str]:
    """Where this code and what it imports are."""
    return [str(HERE.parent), sysconfig.get_path("purelib")]


def backend_folder(wheel: Path, folder: Path) -> Path:
    """Triton's Python backend with the stub of this Python; the wheel has one for each version."""
    python = folder / "python"
    shutil.copytree(wheel / SERVER / "backends" / "python", python)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / SERVER / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists():
        sys.exit(f"error: the Triton wheel has no backend for Python {version}: {stub}")
    shutil.copy(stub, python)
    return folder


def environment(wheel: Path) -> dict[str, str]:
    """The stub embeds Python: it has to find this one's library and standard modules."""
    libraries = [str(wheel / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR") or ""]
    return os.environ | {"LD_LIBRARY_PATH": ":".join(libraries), "PYTHONHOME": sys.base_prefix}


async def serve(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="compare-triton-") as scratch:
        folder = Path(scratch)
        write_repository(folder / "models", arguments.models.resolve(), arguments.library)
        address = f"127.0.0.1:{free_port()}"
        flags = {
            "model-repository": folder / "models",
            "backend-directory": backend_folder(arguments.wheel, folder / "backends"),
            "grpc-address": "127.0.0.1",
            "grpc-port": address.rpartition(":")[2],
            "allow-http": "false",
            "allow-metrics": "false",
            "log-info": "false",
            "exit-timeout-secs": 5,
        }
        # Shared memory that never has to grow while it is used.
        flags["backend-config"] = f"python,shm-default-byte-size={SHARED_MEMORY_BYTES}"
        command = [wheel_program(arguments.wheel), *(f"--{name}={value}" for name, value in flags.items())]
        server = await asyncio.create_subprocess_exec(*command, env=environment(arguments.wheel), start_new_session=True)
        ended = asyncio.create_task(server.wait())
        try:
            await until_ready(address, ended)
            announce(address)
            await asyncio.wait([ended, asyncio.create_task(until_stopped())], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if server.returncode is None:
                server.terminate()
                await ended


def wheel_program(wheel: Path) -> str:
    program = wheel / SERVER / "bin" / "tritonserver"
    # pip does not keep the bit that makes a file a program.
    program.chmod(0o755)
    return str(program)


async def until_ready(address: str, ended: asyncio.Task[int]) -> None:
    """Returns when all models are loaded.

    Raises SystemExit where the server ended, or took too long.
    """
    from tritonclient.grpc import service_pb2

    async with grpc.aio.insecure_channel(address) as channel:
        ready = channel.unary_unary("/inference.GRPCInferenceService/ServerReady")
        for _ in range(READY_SECONDS * 10):
            if ended.done():
                sys.exit(f"error: tritonserver ended with {ended.result()}")
            try:
                reply = service_pb2.ServerReadyResponse.FromString(await ready(b"", timeout=5))
                if reply.ready:
                    return
            except grpc.aio.AioRpcError:
                pass
            await asyncio.sleep(0.1)
    sys.exit(f"error: tritonserver was not ready after {READY_SECONDS} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--library", choices=LIBRARIES, required=True)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--wheel", type=Path, help="the folder into which the server's wheel was installed")
    where.add_argument("--repository", type=Path, help="only write the model repository here")
    arguments = parser.parse_args()
    if arguments.repository:
        write_repository(arguments.repository, arguments.models.resolve(), arguments.library)
    else:
        asyncio.run(serve(arguments))


if __name__ == "__main__":
    main()
