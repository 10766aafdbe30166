"""Child processes that serve: started, listened to, ended by their ids. Knows nothing about what they serve."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from pathlib import Path

# How long a process may take to end when it is asked to.
PATIENCE_SECONDS = 15


class StartError(Exception):
    """A process ended, or took too long, before it listened."""


class Process:
    """A child of this program, and whatever it started itself."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        """Starts the child, in a session of its own: Ctrl-C is for this program, which ends its children in order."""
        self.command = command
        self.child = subprocess.Popen(
            command,
            env=environment,
            # Held open: children of ours end when it closes, so that nothing outlives this program.
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.said: deque[str] = deque(maxlen=40)
        self.errors = threading.Thread(target=self.keep, args=[self.child.stderr], daemon=True)
        self.errors.start()

    def keep(self, lines: object) -> None:
        """Reads on, so that nobody waits for a log to be read; the last lines are for an error message."""
        for line in lines:
            self.said.append(line.rstrip())

    def wait_for(self, mark: str, seconds: float) -> str:
        """The rest of the first line of stdout that has the mark; what comes after it is read and kept.

        Raises StartError.
        """
        timer = threading.Timer(seconds, self.end)
        timer.start()
        try:
            for line in self.child.stdout:
                _, found, rest = line.partition(mark)
                if found:
                    threading.Thread(target=self.keep, args=[self.child.stdout], daemon=True).start()
                    return rest.strip()
                self.said.append(line.rstrip())
        finally:
            timer.cancel()
        self.errors.join(timeout=1)
        last = "\n".join(self.said)
        raise StartError(f"`{' '.join(self.command)}` did not say {mark!r} within {seconds:.0f} s:\n{last}")

    def end(self) -> None:
        """Asks the child to end, then ends by force what is left of it and of its descendants."""
        family = descendants(self.child.pid)
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGINT)
            try:
                self.child.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()
        for process, started in family:
            # The same number may belong to somebody else by now.
            if start_time(process) == started:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue


def descendants(ancestor: int) -> list[tuple[int, str]]:
    """Every process below this one: its id, and when it was started."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := stat(int(folder.name))):
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
    found: list[tuple[int, str]] = []
    waiting = [ancestor]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            found.append((child, start_time(child) or ""))
            waiting.append(child)
    return found


def start_time(process: int) -> str | None:
    """None where there is no such process, or only its exit code."""
    fields = stat(process)
    return fields[19] if fields and fields[0] != "Z" else None


def stat(process: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on, which are those behind the name in parentheses."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
