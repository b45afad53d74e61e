"""Stages in processes of their own, as vLLM needs them on a machine without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from servers import free_port, server_process

STARTS = 300
"""Seconds in which a server of a small model is up."""
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


@contextmanager
def served(model: str, place: Path, *options: str) -> Iterator[str]:
    """The address of a vLLM server of a model, started as docs/models.md says."""
    port = free_port()
    script = str(Path(__file__).with_name("vllm_server.py"))
    asked = [
        "--enable-scale-out",
        "--worker-extension-cls",
        "vllm_kept_weights.Kept",
        "--logprobs-mode",
        "processed_logprobs",
    ]
    asked += ["--host", "127.0.0.1", "--port", str(port)]
    small = ["--dtype", "float32", "--max-model-len", "256", "--enforce-eager", "--max-num-batched-tokens", "32768"]
    place.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, script, "serve", model, *asked, *small, *options]
    path = os.pathsep.join([str(Path(script).parent), str(Path(__file__).parents[2])])
    with server_process(command, place, url, "/health", within=STARTS, PYTHONPATH=path):
        yield url
