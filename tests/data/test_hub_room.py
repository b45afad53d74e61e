"""A data set of the Hub that the disk has no room for is refused before anything of it is downloaded."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from holdfast.data import hub, hub_room
from holdfast.data.hub_room import require_room

COMMIT = "c" * 40
SET = "someone/photographs"
FILES = {
    "data/train-0.parquet": 12_000_000_000,
    "data/train-1.parquet": 6_000_000_000,
    "data/val-0.parquet": 2_000_000_000,
}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def builder(tmp_path: Path) -> Any:
    """Of a set with 20 GB in two splits, of which nothing lies here."""
    urls = {
        split: [f"hf://datasets/{SET}@{COMMIT}/{name}" for name in FILES if split in name] for split in ("train", "val")
    }
    return SimpleNamespace(hash=COMMIT, cache_dir=str(tmp_path / "rows"), config=SimpleNamespace(data_files=urls))


@pytest.fixture
def hub_says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """The Hub's answer, so many bytes that are free, and which files are in its cache."""

    def say(free: float, cached: tuple[str, ...] = (), error: Exception | None = None) -> None:
        def info(self: Any, name: str, *, revision: str, files_metadata: bool) -> Any:
            assert (name, revision, files_metadata) == (SET, COMMIT, True)
            if error is not None:
                raise error
            others = {"README.md": 900, "data/other.zip": 10**12}
            return SimpleNamespace(
                siblings=[SimpleNamespace(rfilename=name, size=size) for name, size in (FILES | others).items()]
            )

        def find(name: str, file: str, **_: Any) -> str | None:
            return f"/cache/{file}" if file in cached else None

        monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", find)
        monkeypatch.setattr(hub_room.shutil, "disk_usage", lambda place: Usage(10**13, 0, free))

    return say


def test_all_files_and_what_is_made_of_them_have_to_fit(builder: Any, hub_says: Callable[..., None]) -> None:
    """Of every split, 20 GB twice; of what lies in the cache, once."""
    hub_says(41e9)
    require_room(SET, builder)
    hub_says(39e9)
    with pytest.raises(ValueError, match=r"^it takes 40 GB of /\S+, which has 39 GB: set HF_HOME to a larger disk$"):
        require_room(SET, builder)
    hub_says(29e9, cached=("data/train-0.parquet",))
    require_room(SET, builder)
    hub_says(27e9, cached=("data/train-0.parquet",))
    with pytest.raises(ValueError, match="takes 28 GB"):
        require_room(SET, builder)


def test_what_lies_here_or_has_no_known_size_is_not_held_against_the_disk(
    builder: Any, hub_says: Callable[..., None]
) -> None:
    hub_says(0, error=OSError("offline"))
    require_room(SET, builder)
    hub_says(0)
    local = SimpleNamespace(**vars(builder) | {"config": SimpleNamespace(data_files={"train": ["/here/a.parquet"]})})
    require_room(SET, local)
    Path(builder.cache_dir).mkdir()
    require_room(SET, builder)


def test_a_set_without_room_is_refused_in_one_sentence_before_it_is_loaded(
    builder: Any, hub_says: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    hub_says(39e9)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_, **__: builder)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("it was downloaded"))
    with pytest.raises(
        ValueError, match=r"cannot load split 'train' of someone/photographs \(it takes 40 GB of .* disk\)"
    ):
        hub.load_split(SET, None, "train")
    with pytest.raises(ValueError, match="it takes 40 GB"):
        hub.look_up(SET, None, "train")
