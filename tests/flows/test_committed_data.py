"""The pointer in the repository and the code that makes the data agree, or a fresh clone's study is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from flows.commands.experiment import load_experiment
from holdfast.benchmarks.dataset import make_data
from holdfast.config.study import Study
from tasks.data import data_directory, data_job

HERE = Path(__file__).parents[2]


def test_the_committed_pointer_names_the_data_that_the_default_study_makes(tmp_path: Path) -> None:
    study = load_experiment(HERE / "experiments" / "bundled.yaml", ())
    assert isinstance(study, Study)
    job = data_job(study)
    make_data(job, tmp_path)
    place = data_directory(study.name, job, HERE).name
    pinned = yaml.safe_load((HERE / "data.dvc").read_text())["meta"]["files"]
    made = {f"{place}/{path.name}": hashlib.md5(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    # Where a study has run, the pointer names its samples as well.
    assert made
    assert made.items() <= pinned.items()
