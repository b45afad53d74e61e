"""Small local copies of public data sets: their columns, types, split names and image formats, pictures of noise."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image

VARIANTS = ["707-320", "737-700", "A340-300"]
THINGS = ["person", "bicycle", "dog"]
SIZE = (100, 80)
NAMES = {
    "aircraft": "HuggingFaceM4/FGVC-Aircraft",
    "sat": "array/SAT",
    "coco": "detection-datasets/coco",
    "refcoco": "lmms-lab/RefCOCO",
}


def photograph(seed: int, kind: str = "JPEG") -> dict[str, Any]:
    """A cell of an image column."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (SIZE[1] // 10, SIZE[0] // 10, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).resize(SIZE).save(buffer, kind)
    return {"bytes": buffer.getvalue(), "path": None}


def write(folder: Path, features: datasets.Features, splits: dict[str, list[dict[str, Any]]]) -> Path:
    """One Parquet file a split, and a card that names them, as on the Hub."""
    (folder / "data").mkdir(parents=True)
    card = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split, rows in splits.items():
        encoded = datasets.Dataset.from_list(rows, features=features)
        encoded.to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
        card += [f"  - split: {split}", f"    path: data/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder


def aircraft(folder: Path, rows: int = 24) -> Path:
    """image, family, manufacturer, variant (class numbers), bbox (a struct)."""
    side = datasets.Value("int64")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "family": datasets.ClassLabel(names=["Boeing 707", "Boeing 737", "A340"]),
            "manufacturer": datasets.ClassLabel(names=["Boeing", "Airbus"]),
            "variant": datasets.ClassLabel(names=VARIANTS),
            "bbox": {"xmin": side, "ymin": side, "xmax": side, "ymax": side},
        }
    )
    box = {"xmin": 1, "ymin": 1, "xmax": 50, "ymax": 40}
    made = {
        split: [
            {"image": photograph(1000 * place + i), "family": i % 3, "manufacturer": 0, "variant": i % 3, "bbox": box}
            for i in range(rows)
        ]
        for place, split in enumerate(("train", "validation", "test"))
    }
    return write(folder, features, made)


def sat(folder: Path, rows: int = 12) -> Path:
    """image_bytes (one or two images), question, answers, question_type, correct_answer."""
    features = datasets.Features(
        {
            "image_bytes": datasets.List(datasets.Image()),
            "question": datasets.Value("string"),
            "answers": datasets.List(datasets.Value("string")),
            "question_type": datasets.Value("string"),
            "correct_answer": datasets.Value("string"),
        }
    )
    made = {
        split: [
            {
                "image_bytes": [photograph(1000 * place + 2 * i + n, "PNG") for n in range(1 + i % 2)],
                "question": f"How did the camera rotate ({i})?",
                "answers": ["left", "right"],
                "question_type": ("ego_movement", "obj_movement")[i % 2],
                "correct_answer": ("left", "right")[i // 2 % 2],
            }
            for i in range(rows)
        ]
        for place, split in enumerate(("train", "static", "val", "test"))
    }
    return write(folder, features, made)


def coco(folder: Path, rows: int = 30) -> Path:
    """image_id, image, width, height, objects (a struct of lists; boxes are corners in pixels)."""
    features = datasets.Features(
        {
            "image_id": datasets.Value("int64"),
            "image": datasets.Image(),
            "width": datasets.Value("int64"),
            "height": datasets.Value("int64"),
            "objects": {
                "bbox_id": datasets.List(datasets.Value("int64")),
                "category": datasets.List(datasets.ClassLabel(names=THINGS)),
                "bbox": datasets.List(datasets.List(datasets.Value("float64"), length=4)),
                "area": datasets.List(datasets.Value("float64")),
            },
        }
    )
    objects = {
        "bbox_id": [1, 2, 3],
        "category": [2, 0, 2],
        "bbox": [[25.0, 20.0, 75.0, 60.0], [0.0, 0.0, 10.0, 80.0], [50.0, 40.0, 100.0, 80.0]],
        "area": [2000.0, 800.0, 2000.0],
    }
    made = {
        split: [
            {"image_id": i, "image": photograph(1000 * place + i), "width": 100, "height": 80, "objects": objects}
            for i in range(rows)
        ]
        for place, split in enumerate(("train", "val"))
    }
    return write(folder, features, made)


def refcoco(folder: Path, rows: int = 40) -> Path:
    """Several rows an image; `answer` lists expressions, bbox is corner and size in pixels."""
    features = datasets.Features(
        {
            "question_id": datasets.Value("string"),
            "image": datasets.Image(),
            "question": datasets.Value("string"),
            "answer": datasets.List(datasets.Value("string")),
            "segmentation": datasets.List(datasets.Value("float32")),
            "bbox": datasets.List(datasets.Value("float32")),
            "iscrowd": datasets.Value("int8"),
            "file_name": datasets.Value("string"),
        }
    )
    made = {
        split: [
            {
                "question_id": str(i),
                "image": photograph(1000 * place + i // 4),
                "question": "Please carefully observe the area circled in the image.",
                "answer": [f"man {i}", f"person number {i}"],
                "segmentation": [1.0, 2.0],
                "bbox": [25.0, 20.0, 50.0, 40.0],
                "iscrowd": 0,
                "file_name": f"COCO_train2014_{i // 4:012d}_{i}.jpg",
            }
            for i in range(rows)
        ]
        for place, split in enumerate(("val", "test", "testA", "testB"))
    }
    return write(folder, features, made)
