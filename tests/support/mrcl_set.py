"""A small MaolinLuo/MRCL, and the files that experiments/mrcl.py makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "experiments" / "mrcl.py"
LETTERS = "ABCD"


def mrcl(root: Path, train: int = 10, test: int = 4, shared: int = 0) -> Path:
    """Two tasks as MaolinLuo/MRCL has them once images.zip is unpacked; test begins with images of training."""
    for task in ("MedBookVQA", "Puzzle"):
        (root / task / "images" / "figures").mkdir(parents=True)
        for index in range(train + test):
            pixels = np.random.default_rng(index).integers(0, 256, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / task / "images" / "figures" / f"{index}.png")
        for split, first, count in (("train", 0, train), ("test", train - shared, test)):
            records = [record(index) for index in range(first, first + count)]
            (root / task / "jsons" / split).mkdir(parents=True)
            (root / task / "jsons" / split / "data.json").write_text(json.dumps(records))
    return root


def record(index: int) -> dict[str, object]:
    asked = f"<image>\nWhat is shown in figure {index}?\nA. a lung\nB. a heart\nC. a knee\nD. none"
    answer = LETTERS[index % 4]
    return {
        "id": index,
        "image": f"figures/{index}.png",
        "conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": answer}],
    }


def written(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, root], capture_output=True, text=True, check=False)
