"""Python modules from the protos of the repository and of this folder, for the processes of a comparison."""

from __future__ import annotations

from pathlib import Path

from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
CHORUS = HERE.parents[2] / "proto" / "proto"


def write(folder: Path) -> None:
    """Writes the modules into a folder, which then belongs on PYTHONPATH.

    Raises RuntimeError where protoc refuses a file; it says why on stderr.
    """
    chorus = sorted(str(file.relative_to(CHORUS)) for file in CHORUS.rglob("*.proto"))
    for root, names in ((CHORUS, chorus), (HERE, ["member.proto"])):
        code = protoc.main(["protoc", f"-I{root}", f"--python_out={folder}", f"--grpc_python_out={folder}", *names])
        if code != 0:
            raise RuntimeError(f"protoc failed below {root}")
