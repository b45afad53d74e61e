"""What rollouts and evaluations by vLLM share."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest
import torch

from holdfast.config.refs import ModelRef
from holdfast.errors import UserError
from holdfast.models import vllm_engine
from holdfast.models.load import load_processor
from holdfast.models.tiny.shipped import shipped_base
from holdfast.models.vllm_engine import (
    as_asked,
    engine_of,
    one_a_picture,
    require_engine,
    require_same_prompts,
    require_vllm,
)


def test_each_image_is_one_token_of_what_vllm_gets():
    assert one_a_picture([1, 9, 9, 9, 2, 9, 3], 9) == [1, 9, 2, 9, 3]
    assert one_a_picture([9, 9], 9) == [9]
    assert one_a_picture([1, 2], 9) == [1, 2]
    assert as_asked("x", [[9, 9, 1], [2]], [["picture"], []], 9) == [[9, 1], [2]]


def test_images_with_nothing_between_them_are_refused():
    with pytest.raises(UserError, match="x: images that follow each other with nothing between them"):
        as_asked("x", [[9, 9, 9, 9, 1]], [["one", "other"]], 9)


def test_a_prompt_that_was_read_otherwise_is_refused():
    require_same_prompts("x", [[1, 2], [3]], [(1, 2), (3,)])
    with pytest.raises(UserError, match="would be to other questions; remove x"):
        require_same_prompts("x", [[1, 2], [3]], [(1, 2), (3, 3)])


def test_a_missing_vllm_and_one_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="x: vLLM is not in this environment; `make vllm`"):
        require_vllm("x")
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: name)
    monkeypatch.setattr(vllm_engine, "version", lambda name: "0.32.1")
    with pytest.raises(UserError, match=r"has vLLM 0\.32\.1, and TRL takes 0.22 to 0.31"):
        require_vllm("x")
    monkeypatch.setattr(vllm_engine, "version", lambda name: "0.31.0")
    require_vllm("x")


def test_the_usual_build_is_refused_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vllm_engine, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(vllm_engine, "version", lambda name: "0.31.0")
    with pytest.raises(UserError, match="x: this vLLM computes on a GPU and torch sees none"):
        require_engine("x")
    monkeypatch.setattr(vllm_engine, "version", lambda name: "0.31.0+cpu")
    require_engine("x")

    def cpu(name: str) -> str:
        if name == "vllm":
            raise PackageNotFoundError
        return "0.31.0"

    monkeypatch.setattr(vllm_engine, "version", cpu)
    require_engine("x")


def test_an_engine_shows_images_in_the_sizes_of_the_study():
    base = shipped_base()
    assert engine_of(base, load_processor(base), "float32", 3).arguments() == {
        "model": base.path,
        "revision": None,
        "dtype": "float32",
        "seed": 3,
    }
    bounded = ModelRef(path=base.path, digest="", max_pixels=64 * 64)
    given = engine_of(bounded, load_processor(bounded), "float32", 3).arguments()
    assert given["mm_processor_kwargs"]["size"]["longest_edge"] == 64 * 64
