"""Runs one measured process: its output, wall and CPU seconds, and peak resident memory."""

import os
import subprocess
import tempfile
import time
from dataclasses import dataclass


class Failed(Exception):
    """A command that did not exit with 0, with the end of what it said."""


@dataclass
class Outcome:
    output: str
    seconds: float
    cpu_seconds: float
    # As the kernel counted it. Never below this script's own few MB: a new process starts
    # as a copy of its parent.
    peak_memory_bytes: int
    # Seconds from the start at which each mark was printed.
    marks: dict

    def figures(self):
        return {
            "process_seconds": self.seconds,
            "process_cpu_seconds": self.cpu_seconds,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def run(command, marks=(), merge=False):
    """Runs a command to its end. `merge` puts stderr into the output, in order."""
    command = [str(part) for part in command]
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        try:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT if merge else errors
            )
        except OSError as error:
            raise Failed(f"{command[0]}: {error.strerror}") from error
        output, seen = b"", {}
        try:
            while piece := os.read(process.stdout.fileno(), 1 << 16):
                now = time.perf_counter() - start
                output += piece
                for mark in marks:
                    if mark not in seen and mark.encode() in output:
                        seen[mark] = now
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        text = output.decode(errors="replace")
        if process.returncode:
            errors.seek(0)
            said = (text + errors.read().decode(errors="replace")).strip().splitlines()
            raise Failed(f"{os.path.basename(command[0])} exited with {process.returncode}: "
                         + " | ".join(said[-3:]))
    cpu = usage.ru_utime + usage.ru_stime
    return Outcome(text, seconds, cpu, usage.ru_maxrss * 1024, seen)
