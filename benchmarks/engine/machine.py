"""What a result must say about where, when and of which commit it was measured."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

# Instruction sets that decide the speed of matrix products.
TELLING = ["avx2", "fma", "f16c", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd"]


def describe():
    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    fields = {}
    for line in info.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "cpu": fields.get("model name", platform.processor() or "unknown"),
        "cpu_family_model": f"{fields.get('cpu family', '?')}/{fields.get('model', '?')}",
        "cores": len(os.sched_getaffinity(0)),
        "features": [flag for flag in TELLING if flag in flags],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": f"{platform.system().lower()} {platform.machine()}",
    }


def load():
    """Load average of the last minute: how much else was going on."""
    return os.getloadavg()[0]


def now():
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit(folder):
    """The commit that was measured; `-dirty` when the tree had changes."""
    asked = subprocess.run(
        ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
        cwd=folder, capture_output=True, text=True, check=False,
    )
    return asked.stdout.strip() or None
