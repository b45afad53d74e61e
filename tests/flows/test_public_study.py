"""A study with public benchmarks and a teacher's file of the user's own, from the command line to a harness's files."""

from __future__ import annotations

import json
from pathlib import Path

import prior_sets
import pytest
from repositories import holdfast, new_repository

from holdfast.data.shards import read_questions

pytestmark = pytest.mark.slow
TRAINER = {"max_steps": 2, "per_device_train_batch_size": 4}


def test_a_study_learns_from_a_file_is_asked_public_benchmarks_and_is_exported(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    taught = {"method": "sft", "source": {"kind": "file", "path": "teacher.jsonl"}, "trainer": TRAINER}
    public = [
        {"benchmark": "mme", "system": "Be brief.", "questions": 8},
        {"benchmark": "gsm8k", "shots": 0, "questions": 4},
    ]
    copies = {name: str(prior_sets.copy(tmp_path / name, name)) for name in ("mme", "gsm8k")}
    study = {
        "name": "public",
        "target": {"train": 16, "validation": 4, "test": 4},
        "prior": [{**one, "data": copies[str(one["benchmark"])], "validation": 4} for one in public],
        "arms": {"taught": [taught]},
        "evaluation": {"every": 1, "drift_prompts": 2, "max_new_tokens": 96, "batch_size": 16},
    }
    new_repository(root, study)
    assert holdfast(root, str(tmp_path), "data", "public.yaml").code == 0
    refused = holdfast(root, str(tmp_path), "study", "public.yaml")
    assert refused.code == 2
    assert "source.path: teacher.jsonl is no JSONL or Parquet file" in refused.stderr
    [shard] = root.glob("data/*/target-train.parquet")
    rows = [{"id": question.id, "completion": question.teacher} for question in read_questions(shard)]
    rows[0]["completion"] = "<think> no </think> <answer> 9 9 9 9 </answer>"
    (root / "teacher.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = holdfast(root, str(tmp_path), "study", "public.yaml")
    assert done.code == 0, done.stderr
    assert "1 of 16 completions of teacher.jsonl are wrong or cannot be read, the first in row 1" in done.stderr
    assert "check: teacher.jsonl teaches 15 of the 16 training questions; the others are left out." in done.stderr
    exported = holdfast(root, str(tmp_path), "samples", "public", "out")
    files = [Path(line) for line in exported.stdout.splitlines()]
    assert len(files) == 2 * 3
    found = holdfast(root, str(tmp_path), "rescore", str(files[-1]))
    assert "gsm8k: 4 answers" in found.stdout
