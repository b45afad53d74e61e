"""Whether a base can see what a study shows it, by its configuration alone and before any data is made."""

from __future__ import annotations

import json
from pathlib import Path

from huggingface_hub import hf_hub_download

from holdfast.benchmarks.dataset import shows_images
from holdfast.config.refs import ModelRef
from holdfast.config.study import Study
from holdfast.models.text_processor import refusal

SEES = {"vision_config", "image_size"}
"""One of them stands in the configuration of every model that reads images."""


def require_sight(study: Study, ref: ModelRef) -> None:
    """Refuse benchmarks that show images to a model of text; the check looks at every question again.

    Raises:
        UserError: it names the first such benchmark.
    """
    shown = (shows_images(target, study.prior) for target in study.all_targets.values())
    field = next((field for field in shown if field is not None), None)
    if field is None:
        return
    try:
        config = json.loads(_config_file(ref).read_text("utf-8"))
        names = list(config.get("architectures") or [])
        blind = bool(names) and all(name.endswith("ForCausalLM") for name in names) and not config.keys() & SEES
    except Exception:  # the check says what is wrong with a model's files
        return
    if blind:
        raise refusal(field, config.get("model_type", names[0]))


def _config_file(ref: ModelRef) -> Path:
    if Path(ref.path).is_dir():
        return Path(ref.path) / "config.json"
    return Path(hf_hub_download(ref.path, "config.json", revision=ref.revision))
