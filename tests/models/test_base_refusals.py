"""A base that is not to be had is refused in one sentence, each cause with its own remedy."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from holdfast.config.model import Model
from holdfast.errors import UserError
from holdfast.models import base_ref
from holdfast.models.base_ref import reference

ANSWER = httpx.Response(404, request=httpx.Request("GET", "https://hub/api/models/a/b"))
CAUSES: list[tuple[Exception, str]] = [
    (RepositoryNotFoundError("404", response=ANSWER), r"model\.path: the Hub has no a/b, or only for .* \(HF_TOKEN\)"),
    (GatedRepoError("403", response=ANSWER), r"model\.path: a/b is given out to those who ask; accept .* HF_TOKEN"),
    (RevisionNotFoundError("404", response=ANSWER), r"model\.revision: a/b has no revision v9; name one"),
    (HfHubHTTPError("502 Bad Gateway", response=ANSWER), r"the Hub does not answer \(502 Bad Gateway\) and a/b is not"),
    (httpx.ConnectError("Name or service not known"), r"the Hub does not answer \(Name or service not known\)"),
    (httpx.ReadTimeout("timed out"), r"the Hub does not answer \(timed out\)"),
]


@pytest.mark.parametrize(("cause", "words"), CAUSES, ids=lambda value: type(value).__name__)
def test_each_cause_has_its_own_sentence(cause: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise cause

    def nowhere(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("none")

    monkeypatch.setattr(base_ref, "model_info", refused)
    monkeypatch.setattr(base_ref, "snapshot_download", nowhere)
    with pytest.raises(UserError, match=words):
        reference(Model(path="a/b", revision="v9"))


def test_a_model_in_the_cache_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused(*_: object, **__: object) -> None:
        raise httpx.ConnectError("Name or service not known")

    monkeypatch.setattr(base_ref, "model_info", refused)
    monkeypatch.setattr(base_ref, "snapshot_download", lambda *_, **__: str(tmp_path / "0123"))
    assert reference(Model(path="a/b")).digest == "0123"
