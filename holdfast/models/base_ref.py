"""Name the exact files of a base model that the study did not build: a directory's digest or a Hub commit."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import model_info, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import httpx

from holdfast.config.model import Model
from holdfast.config.refs import ModelRef, directory_digest
from holdfast.errors import UserError, reason
from holdfast.models.tiny.shipped import shipped_base

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
REMEDY = "name `bundled`, a Hub id such as Qwen/Qwen2.5-VL-3B-Instruct, or a checkpoint directory"


def reference(model: Model) -> ModelRef:
    """The model's files as they are now. UserError where there is no such checkpoint."""
    return read_as(model, _files(model))


def read_as(model: Model, ref: ModelRef) -> ModelRef:
    """The ref of a study's base with what the study says of how it is read."""
    said = {name: getattr(model, name) for name in ("attention", "min_pixels", "max_pixels")}
    return ref.model_copy(update=said)


def _files(model: Model) -> ModelRef:
    path = Path(model.path)
    if model.revision is not None and (model.path == "bundled" or path.is_dir()):
        raise UserError(f"model.revision: {model.path} is not on the Hub, so it has no revisions; leave it out.")
    if model.path == "bundled":
        return shipped_base()
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            raise UserError(
                f"model.path: {path} holds a LoRA adapter (adapter_config.json); merge it first and name the result"
            )
        if not (path / "config.json").is_file():
            raise UserError(f"model.path: {path} holds no config.json, so it is no checkpoint; {REMEDY}.")
        return ModelRef(path=str(path.resolve()), digest=directory_digest(path))
    if not HUB_ID.fullmatch(model.path):
        raise UserError(f"model.path: {model.path} is no directory; {REMEDY}.")
    commit = _commit(model)
    return ModelRef(path=model.path, digest=commit, revision=commit)


def _commit(model: Model) -> str:
    """What the Hub says, or where it does not answer, what the local cache holds."""
    try:
        found = model_info(model.path, revision=model.revision).sha
        assert found is not None
        return found
    except RevisionNotFoundError:
        raise UserError(
            f"model.revision: {model.path} has no revision {model.revision}; name one that its page shows"
        ) from None
    except GatedRepoError:
        raise UserError(
            f"model.path: {model.path} is given out to those who ask; accept its terms on its page and set HF_TOKEN"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"model.path: the Hub has no {model.path}, or only for those with a token (HF_TOKEN); {REMEDY}."
        ) from None
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError) as error:
        why = reason(error)
    try:
        return Path(snapshot_download(model.path, revision=model.revision, local_files_only=True)).name
    except LocalEntryNotFoundError:
        raise UserError(
            f"model.path: the Hub does not answer ({why}) and {model.path} is not in the local cache; try again with a "
            "network, download it where there is one and bring that HF_HOME here, or name a checkpoint directory."
        ) from None
