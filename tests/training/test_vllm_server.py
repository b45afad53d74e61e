"""What a vLLM server is asked, without one; with one in test_vllm_rollouts.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.errors import UserError
from holdfast.models.vllm_engine import Engine
from holdfast.training.vllm_server import Server, _as_json, _laid_out, _output

IMAGE = 7
ENGINE = Engine("owner/model", "0" * 40, "bfloat16", 0, IMAGE, {"shortest_edge": 1, "longest_edge": 9})


class Parameters:
    """As vLLM's: every field has a default."""

    __struct_fields__ = ("max_tokens", "temperature", "seed", "logit_bias", "structured_outputs", "_own")

    def __init__(self, **given: Any) -> None:
        plain = {"max_tokens": 16, "temperature": 1.0, "seed": None, "logit_bias": None, "_own": object()}
        vars(self).update(plain | {"structured_outputs": None} | given)


def test_a_prompt_is_laid_out_as_the_server_reads_its_images():
    places = [{"offset": 90, "length": 3}, {"offset": 99, "length": 1}]
    features = {"mm_hashes": {"image": ["a", "b"]}, "mm_placeholders": {"image": places}}
    ids, given = _laid_out([1, IMAGE, 2, IMAGE, 3], features, IMAGE)
    assert ids == [1, 7, 7, 7, 2, 7, 3]
    assert given == {
        "mm_hashes": {"image": ["a", "b"]},
        "mm_placeholders": {"image": [{"offset": 1, "length": 3}, {"offset": 5, "length": 1}]},
    }
    assert _laid_out([1, 2], None, None) == ([1, 2], None)


def test_a_limit_is_said_even_where_it_is_the_default_of_an_engine():
    assert _as_json(Parameters()) == {"max_tokens": 16, "output_kind": 2}
    guided = Parameters(
        max_tokens=5, seed=3, logit_bias={7: -100.0}, structured_outputs=SimpleNamespace(regex="a", _b=1)
    )
    assert _as_json(guided) == {
        "max_tokens": 5,
        "seed": 3,
        "logit_bias": {7: -100.0},
        "structured_outputs": {"regex": "a"},
        "output_kind": 2,
    }


def test_tokens_and_their_log_probabilities_are_those_of_the_answer():
    content = [
        {"token": f"token_id:{token}", "logprob": value, "top_logprobs": []} for token, value in ((5, -0.5), (9, -2.0))
    ]
    found = _output({"token_ids": [5, 9], "logprobs": {"content": content}})
    assert found.token_ids == [5, 9]
    assert [(token, one.rank, one.logprob) for of in found.logprobs for token, one in of.items()] == [
        (5, 1, -0.5),
        (9, 1, -2.0),
    ]


def test_where_no_server_answers_the_command_is_told_that_starts_one():
    with pytest.raises(UserError) as told:
        Server("http://127.0.0.1:9", 0.0, ENGINE)
    assert str(told.value).startswith(
        "trainer.vllm_mode: no vLLM server answers at http://127.0.0.1:9; start it: VLLM_SERVER"
    )
    assert "serve owner/model --enable-scale-out" in str(told.value)
    assert "--mm-processor-kwargs" in str(told.value)
