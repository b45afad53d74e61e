"""A base that is not to be had is refused in one sentence, each cause with its own remedy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

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


PROGRAM = """
import sys
from holdfast.config.model import Model
from holdfast.errors import UserError
from holdfast.models.base_ref import reference
for name in sys.argv[1:]:
    try:
        print(reference(Model(path=name)).revision)
    except UserError as error:
        print(error)
"""
COMMIT = "c" * 40


@pytest.mark.parametrize(("offline", "why"), [("", "[Errno 111] Connection refused"), ("1", "Cannot reach")])
def test_a_model_in_the_cache_needs_no_network_and_another_is_refused(offline: str, why: str, tmp_path: Path) -> None:
    """The client itself is refused by a port that nobody listens on; it reads where the Hub is when it is imported."""
    cached = tmp_path / "hub" / "models--a--cached"
    for file, text in ((f"snapshots/{COMMIT}/config.json", "{}"), ("refs/main", COMMIT)):
        (cached / file).parent.mkdir(parents=True)
        (cached / file).write_text(text)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        place = f"http://127.0.0.1:{bound.getsockname()[1]}"
        where = {"HF_ENDPOINT": place, "HF_HOME": str(tmp_path), "no_proxy": "127.0.0.1", "HF_HUB_OFFLINE": offline}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "a/cached", "a/other"],
            env={**os.environ, **where},
            check=True,
            capture_output=True,
            text=True,
        )
    found, refused = done.stdout.splitlines()
    assert found == COMMIT
    assert refused.startswith(f"model.path: the Hub does not answer ({why}")
    assert "and a/other is not in the local cache; try again with a network, download it where there is one" in refused


def test_a_directory_of_an_adapter_is_called_one(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds a LoRA adapter \(adapter_config\.json\); merge it first"):
        reference(Model(path=str(tmp_path)))


def test_a_revision_of_what_is_not_on_the_hub_is_refused(tmp_path: Path) -> None:
    for path in (str(tmp_path), "bundled"):
        with pytest.raises(UserError, match=r"model\.revision: .* is not on the Hub, so it has no revisions; leave it"):
            reference(Model(path=path, revision="v2"))
