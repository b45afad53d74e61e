from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from synthetic_studies import Shape, Truth, finished_study

from holdfast.analysis.settings import places
from holdfast.analysis.table import load
from holdfast.config.results import FinishedStudy
from holdfast.errors import UserError
from holdfast.evaluation.records import read_records

SMALL = Shape(replicates=2, target=12, prior=10, validation=4, steps=(2, 4))
ARMS = {"self": Truth(), "answers": Truth(retention=0.4)}


def rewrite(study: FinishedStudy, arm: str | None, change) -> None:
    one = next(one for one in study.evaluated if one.kind == "records" and one.arm == arm and one.benchmark == "count")
    pq.write_table(change(pq.read_table(one.file.path)), one.file.path)


def test_records_are_tidy(tmp_path: Path) -> None:
    tables = load([finished_study(tmp_path / "a", ARMS, SMALL)])
    records = tables.records
    # A base and two arms of two replicates and two checkpoints, of 12 + 3 · 10 + 4 · 4 questions.
    assert len(records) == 9 * 58
    assert set(records["arm"]) == {"base", "self", "answers"}
    one = tables.files.iloc[5]
    own = records.iloc[one["start"] : one["stop"]]
    assert (own["benchmark"] == one["benchmark"]).all()
    assert list(own["split"]) == ["test"] * (one["middle"] - one["start"]) + ["validation"] * 4
    read = pq.read_table(one["path"])
    assert own["correct"].tolist() == read["correct"].to_pylist()
    assert own["question"].tolist() == read["id"].to_pylist()


def test_rows_in_another_order_are_the_same_questions(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, SMALL)
    before = load([study]).records
    rewrite(study, "self", lambda table: table.take(list(reversed(range(len(table))))))
    after = load([study]).records
    assert after.equals(before)


def test_old_records_do_not_know_form_cuts_or_lenient_scores(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, SMALL)
    rewrite(study, "self", lambda table: table.drop_columns(["strict", "cut", "lenient"]))
    assert load([study]).records[["strict", "cut", "lenient"]].isna().all(axis=None)
    old = next(one for one in study.evaluated if one.arm == "self" and one.benchmark == "count")
    assert {(row.strict, row.cut, row.lenient) for row in read_records(old.file.path)} == {(None, None, None)}


def test_missing_questions_are_refused(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, SMALL)
    rewrite(study, "self", lambda table: table.slice(1))
    with pytest.raises(UserError, match="self was asked other questions of count than the base"):
        load([study])


def test_a_question_that_stands_twice_is_refused(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, SMALL)
    rewrite(study, "self", lambda table: pa.concat_tables([table.slice(1), table.slice(1, 1)]))
    with pytest.raises(UserError, match="other questions"):
        load([study])


def test_studies_that_ask_other_questions_are_refused(tmp_path: Path) -> None:
    studies = [finished_study(tmp_path / name, ARMS, SMALL, name=name, seed=seed) for seed, name in enumerate("ab")]
    with pytest.raises(UserError, match="a and b cannot be compared: they were asked different questions"):
        load(studies)


def test_studies_that_grade_otherwise_are_refused(tmp_path: Path) -> None:
    studies = [finished_study(tmp_path / name, ARMS, SMALL, name=name) for name in "ab"]
    for one in studies[1].evaluated:
        if one.kind == "records" and one.benchmark == "count":
            table = pq.read_table(one.file.path)
            graders = pa.array(["other"] * len(table))
            pq.write_table(table.set_column(table.column_names.index("grader"), "grader", graders), one.file.path)
    with pytest.raises(UserError, match="count: a and b cannot be compared: answers are graded by"):
        load(studies)


def test_a_benchmark_may_have_a_grader_for_every_question(tmp_path: Path) -> None:
    studies = [finished_study(tmp_path / name, ARMS, SMALL, name=name) for name in "ab"]
    files = [one.file.path for study in studies for one in study.evaluated if one.benchmark == "count"]
    files = [path for path in files if "records" in path.parts]
    for path in files:
        table = pq.read_table(path)
        graders = pa.array([("exact", "number")[ord(question[-1]) % 2] for question in table["id"].to_pylist()])
        assert len(graders.unique()) == 2
        pq.write_table(table.set_column(table.column_names.index("grader"), "grader", graders), path)
    assert len(load(studies).records)
    table = pq.read_table(files[-1])
    turned = pa.array(["number" if one == "exact" else "exact" for one in table["grader"].to_pylist()])
    pq.write_table(table.set_column(table.column_names.index("grader"), "grader", turned), files[-1])
    with pytest.raises(UserError, match="count is graded otherwise for"):
        load(studies)


def test_a_sweep_of_seeds_is_one_setting(tmp_path: Path) -> None:
    sweep = [
        finished_study(tmp_path / str(seed), ARMS, SMALL, {"seed": str(seed)}, name=f"s-{seed}", seed=seed, sweep="s")
        for seed in range(2)
    ]
    alone = finished_study(tmp_path / "alone", ARMS, SMALL, name="alone")
    assert [(place.setting, place.draw) for place in places(sweep)] == [("", "seed=0"), ("", "seed=1")]
    assert [place.setting for place in places([alone, *sweep])] == ["study=alone", "study=s", "study=s"]
    assert len(load([alone, *sweep]).places) == 3


def test_one_study_twice_is_two(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, SMALL)
    assert [place.setting for place in places([study, study])] == ["study=made", "study=made (2)"]


def test_drift_and_flips(tmp_path: Path) -> None:
    tables = load([finished_study(tmp_path / "a", ARMS, SMALL)])
    assert tables.flips.iloc[0]["answers"] == pytest.approx(0.01)
    assert np.isfinite(tables.drift["kl"]).all()
    assert tables.pass_at.empty
