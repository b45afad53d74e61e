"""Stages in processes of their own, as vLLM needs them on a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="make test-vllm has vLLM")


def begun(job: Any, out: Path) -> subprocess.Popen[str]:
    """The process of a stage."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "job.json").write_text(job.model_dump_json())
    root = Path(__file__).parents[2]
    command = [sys.executable, str(root / "tests/support/vllm_stage.py"), str(out / "job.json"), str(out)]
    own = {**os.environ, "PYTHONPATH": str(root)}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=own)


def staged(job: Any, out: Path) -> subprocess.CompletedProcess[str]:
    """The stage, when it has ended."""
    process = begun(job, out)
    _, said = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, "", said)
