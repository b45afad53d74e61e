"""Adapters on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SAVED = """
import sys, torch
from pathlib import Path
from holdfast.config.methods import SFT
from holdfast.config.refs import directory_digest
from holdfast.models.load import save_checkpoint
from holdfast.models.lora import adapted
from holdfast.models.tiny.build import build_model
from holdfast.models.tiny.processor import build_processor
torch.manual_seed(0)
processor = build_processor()
lora = {"r": 2, "target_modules": "all-linear"}
stage = SFT.model_validate({"method": "sft", "source": "answers", "lora": lora})
model = adapted(build_model(processor, hidden=64, layers=1), stage, seed=0)
save_checkpoint(model, processor, Path(sys.argv[1]))
print(directory_digest(Path(sys.argv[1])))
"""


def test_every_process_writes_the_same_bytes_of_an_adapter(tmp_path: Path) -> None:
    """peft holds the names of modules in a set, whose order hangs on the process."""

    def digest(seed: str) -> str:
        command = [sys.executable, "-c", SAVED, str(tmp_path / seed)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert digest("1") == digest("2")
