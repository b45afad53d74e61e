"""What a stage's process leaves: its job, its last metrics, and a journal that a kill cannot spoil."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import pytest
import torch

from holdfast.config.images import World
from holdfast.config.jobs import MakeData
from holdfast.config.refs import file_digest
from holdfast.config.targets import Jigsaw
from holdfast.determinism import settle_torch, varying
from holdfast.journal import Journal, read_lines
from holdfast.stages.process import result, run_job


def test_a_job_that_is_run_by_hand_lies_beside_what_it_left(tmp_path: Path) -> None:
    job = MakeData(images=World(), target=Jigsaw(train=2, validation=1, test=1), prior=())
    given = tmp_path / "given.json"
    given.write_text(job.model_dump_json())
    run_job(str(given), str(tmp_path / "out"))
    assert MakeData.model_validate_json((tmp_path / "out" / "job.json").read_text()) == job


def test_a_stage_refuses_to_be_one_of_several_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = MakeData(images=World(), target=Jigsaw(train=2, validation=1, test=1), prior=())
    (tmp_path / "given.json").write_text(job.model_dump_json())
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended:
        run_job(str(tmp_path / "given.json"), str(tmp_path / "out"))
    assert ended.value.code == 2
    assert json.loads((tmp_path / "out" / "error.json").read_text())["message"].startswith("WORLD_SIZE=2:")
    assert not (tmp_path / "out" / "result.json").exists()


def test_operations_without_a_deterministic_kernel_are_collected_and_other_warnings_go_on() -> None:
    warned = [
        "cumsum_cuda_kernel does not have a deterministic implementation, but you set …",
        "Memory Efficient attention defaults to a non-deterministic algorithm. To …",
        "of another kind",
    ]
    with warnings.catch_warnings(record=True) as shown, varying() as operations:
        warnings.simplefilter("always")
        for text in warned:
            warnings.warn(text, stacklevel=1)
    assert operations == {"cumsum_cuda_kernel", "Memory Efficient attention"}
    assert [str(warning.message) for warning in shown] == ["of another kind"]


def test_a_stage_with_torch_uses_deterministic_kernels() -> None:
    torch.use_deterministic_algorithms(False)
    settle_torch(torch.get_num_threads())
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.utils.deterministic.fill_uninitialized_memory


def test_what_a_training_began_with_is_not_told_as_what_it_ended_with(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.log(0, {"kl/target": 0.0, "target/jigsaw/score": 0.25})
    assert result(tmp_path, 1.0, {}).metrics == {"kl/target": 0.0, "target/jigsaw/score": 0.25}
    journal.log(4, {"kl/target": math.nan, "target/jigsaw/score": 0.5})
    found = result(tmp_path, 1.0, {}).metrics
    assert found.keys() == {"kl/target", "target/jigsaw/score"}
    assert math.isnan(found["kl/target"])


@pytest.mark.parametrize("left", [b'{"step": 2, "met', b'{"step": 2, "met\xf2ics"}\n', b'{"step": 7, "metrics": {}}\n'])
def test_a_journal_that_an_interrupted_process_left_does_not_spoil_the_next_one(tmp_path: Path, left: bytes) -> None:
    journal = Journal(tmp_path)
    journal.log(1, {"loss": 1.0})
    journal.save(tmp_path / "saved")
    before = journal.path.stat().st_ino
    journal.path.write_bytes(journal.path.read_bytes() + left)
    again = Journal(tmp_path)
    assert read_lines(again.path) == []
    assert again.path.stat().st_ino != before, "who tails it sees that it is another one"
    again.restore(tmp_path / "saved")
    again.log(2, {"loss": 0.5})
    assert [line["metrics"]["loss"] for line in read_lines(journal.path)] == [1.0, 0.5]


@pytest.mark.parametrize("name", ["metrics.jsonl", "job.json"])
def test_a_result_says_what_its_journal_and_its_job_are(tmp_path: Path, name: str) -> None:
    Journal(tmp_path).log(1, {"loss": 1.0})
    (tmp_path / "job.json").write_text("{}")
    (tmp_path / "result.partial").write_text("{")
    found = result(tmp_path, 1.0, {}).files
    assert found.keys() == {"metrics.jsonl", "job.json"}
    assert found[name] == file_digest(tmp_path / name)
