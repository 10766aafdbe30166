"""What the machine does beside the measurement. Knows nothing about engines."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path


def busy_seconds() -> float:
    """Processor time that all processes have used since the machine started, stolen time included."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


class Others:
    """How many cores everybody else used between `__init__` and `cores`."""

    def __init__(self, own_seconds: float) -> None:
        self.busy, self.own, self.started = busy_seconds(), own_seconds, time.monotonic()

    def cores(self, own_seconds: float) -> float:
        passed = max(time.monotonic() - self.started, 1e-3)
        return max(0.0, (busy_seconds() - self.busy) - (own_seconds - self.own)) / passed


def wait_until_quiet(patience: float, limit: float = 0.15) -> None:
    """Returns when the machine is all but idle, or after `patience` seconds."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        others = Others(0.0)
        time.sleep(0.25)
        if others.cores(0.0) < limit:
            return


def device_name(device: str) -> str:
    """The GPU of a name like `cuda` or `cuda:1`, as its driver calls it."""
    number = device.partition(":")[2] or "0"
    try:
        asked = ["nvidia-smi", f"--id={number}", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown GPU"


def name() -> str:
    """The processor, as the system calls it, and how many cores there are to run on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else 'unknown processor'}, {len(os.sched_getaffinity(0))} cores"
