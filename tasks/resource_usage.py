"""What a stage's processes use of the machine, sampled from outside: it needs no help from the stage."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from typing import Any

import psutil

EVERY = 5.0


class ResourceUsage:
    """CPU and memory of processes and their descendants, and their GPUs, as `{"system": {...}}` lines."""

    def __init__(self, pids: Sequence[int | None], gpu: str) -> None:
        self.pids, self.gpu = pids, gpu
        self.last = time.monotonic()
        self.cpu_seconds = 0.0

    def new_lines(self) -> list[dict[str, Any]]:
        """One line every few seconds, otherwise none."""
        passed = time.monotonic() - self.last
        if passed < EVERY:
            return []
        self.last += passed
        try:
            system = self._processes(passed)
        except psutil.NoSuchProcess:
            return []
        return [{"system": {**system, **self._gpu()}, "time": time.time()}]

    def _processes(self, passed: float) -> dict[str, float]:
        roots = [psutil.Process(pid) for pid in self.pids]
        family = [one for root in roots for one in (root, *root.children(recursive=True))]
        seconds = sum(sum(p.cpu_times()[:2]) for p in family)
        used, self.cpu_seconds = seconds - self.cpu_seconds, seconds
        return {
            "system/cpu_utilization_percentage": 100 * max(0.0, used) / passed,
            "system/memory_usage_megabytes": sum(p.memory_info().rss for p in family) / 2**20,
        }

    def _gpu(self) -> dict[str, float]:
        if not self.gpu:
            return {}
        query = [
            "nvidia-smi",
            "-i",
            self.gpu,
            "--query-gpu=utilization.gpu,memory.used",
            "--format=csv,noheader,nounits",
        ]
        try:
            answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=EVERY)
        except (OSError, subprocess.TimeoutExpired):
            return {}
        names = ("system/gpu_utilization_percentage", "system/gpu_memory_usage_megabytes")
        given = [line.split(",") for line in answer.stdout.splitlines()] if answer.returncode == 0 else []
        # An instance of a GPU has no utilization of its own: [N/A].
        columns = zip(names, zip(*given, strict=False), strict=False)
        found = {name: [float(value) for value in values if _is_number(value)] for name, values in columns}
        # Of several GPUs the utilization is the mean and the memory the sum.
        return {
            name: sum(values) / (len(values) if "utilization" in name else 1)
            for name, values in found.items()
            if values
        }


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdecimal()
