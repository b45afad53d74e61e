import json
from io import StringIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from synthetic_studies import Shape, Truth, compare_job, finished_study, with_cuts, with_form

from holdfast.analysis.estimates import Moments
from holdfast.analysis.length_split import longer_weights, split_halves
from holdfast.analysis.matched import Point, at_score, common_score, on_front
from holdfast.analysis.study import Analysis, analyse
from holdfast.analysis.summary import summary
from holdfast.errors import UserError
from holdfast.report.terminal import arms_table

ARMS = {"rft": Truth(0.6, 0.95, 0.02), "self": Truth(0.65, 0.8, 0.02), "answers": Truth(0.7, 0.4, 0.02, 0.6)}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Analysis:
    root = tmp_path_factory.mktemp("studies")
    return analyse(compare_job(finished_study(root / "a", ARMS, Shape(target=80, prior=80, traced=True))))


def test_arms_end_as_they_were_made(found: Analysis) -> None:
    for row in found.arms.itertuples():
        truth = ARMS[row.arm]
        assert row.retention_low - 0.03 < truth.retention < row.retention_high + 0.03
        assert row.retention == pytest.approx(1 - row.forgetting / found.base.set_index("benchmark").accuracy["mean"])
        assert (row.replicates, row.covers, row.left_out) == (3, "questions and replicates", 0)


def test_numbers_are_means_over_the_records(found: Analysis) -> None:
    records = found.tables.records
    end = records[(records.arm == "self") & (records.step == 32) & (records.split == "test")]
    arm = found.arms.set_index("arm").loc["self"]
    assert arm.score == pytest.approx(end[end.role == "target"].score.mean())
    by_benchmark = end[end.role == "prior"].groupby("benchmark", observed=True)
    assert arm.prior == pytest.approx(by_benchmark.correct.mean().mean())
    assert arm.unparsed == pytest.approx(1 - by_benchmark.parsed_ok.mean().mean())


def test_forgetting_is_what_was_lost_without_what_was_gained(found: Analysis) -> None:
    rows = found.benchmarks
    assert (rows.forgetting - (rows.lost_unreadable + rows.lost_wrong - rows.gained)).abs().max() < 1e-12


def test_what_was_lost_can_be_counted_in_the_records(found: Analysis) -> None:
    records = found.tables.records
    own = records[(records.benchmark == "color") & (records.split == "test")]
    known = own[(own.arm == "base") & own.correct].question
    end = own[(own.arm == "answers") & (own.step == 32)]
    wrong = end[end.question.isin(known) & ~end.correct & end.parsed_ok]
    row = found.benchmarks.set_index(["arm", "benchmark"]).loc["answers", "color"]
    assert len(wrong) == pytest.approx(row.lost_wrong * 3 * row.questions)


def test_form_that_is_lost_stands_beside_knowledge_that_stays(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, Shape(target=20, prior=40))
    found = analyse(compare_job(with_form(study, "count")))
    rows = found.benchmarks.set_index(["arm", "benchmark"])
    base = found.base.set_index("benchmark")
    row = rows.loc["self", "count"]
    assert base.strict["count"] < base.accuracy["count"]
    assert row.forgetting_strict == pytest.approx(base.strict["count"] - row.strict)
    assert row.forgetting_strict > row.forgetting + 0.05
    assert rows.strict.unstack()[["jigsaw", "color"]].isna().all(axis=None)
    assert np.isnan(base.strict["mean"])
    arm = summary(found)["arms"]["self"]
    assert arm["metrics"]["forgetting/count/strict"] == pytest.approx(row.forgetting_strict, rel=1e-5)
    assert {name for name in arm["intervals"] if "strict" in name} == {"prior/count/strict", "forgetting/count/strict"}


def test_questions_lost_to_the_limit_are_a_part_of_those_lost(tmp_path: Path) -> None:
    study = with_cuts(finished_study(tmp_path / "a", ARMS, Shape(target=20, prior=40)), None, "answers")
    found = analyse(compare_job(study))
    rows, base = found.benchmarks.set_index(["arm", "benchmark"]), found.base.set_index("benchmark")
    row, target = rows.loc["answers", "count"], rows.loc["answers", "jigsaw"]
    # Just what cannot be read was cut off.
    assert 0 < row.lost_cut == pytest.approx(row.lost_unreadable)
    assert row.cut == pytest.approx(row.unparsed)
    assert target.lenient == pytest.approx((1 + target.score) / 2)
    assert base.lenient["jigsaw"] == pytest.approx((1 + base.score["jigsaw"]) / 2)
    assert np.isnan([row.lenient, base.lenient["count"], rows.lost_cut["self", "count"]]).all()
    arms = found.arms.set_index("arm")
    assert arms.left_out.tolist() == [0, 0, 0]
    assert arms.cut["answers"] == pytest.approx(arms.unparsed["answers"])
    assert arms.lenient["answers"] == pytest.approx((1 + arms.score["answers"]) / 2)
    assert arms[["cut", "cut_target", "lenient"]].loc[["rft", "self"]].isna().all(axis=None)
    known = summary(found)["arms"]
    assert known["answers"]["metrics"]["prior/count/cut"] == pytest.approx(row.cut, rel=1e-5)
    assert known["answers"]["benchmarks"]["count"]["lost_cut"]["value"] == pytest.approx(row.lost_cut, rel=1e-5)
    assert {"target/jigsaw/lenient", "target/jigsaw/cut", "prior/mean/cut"} <= known["answers"]["metrics"].keys()
    assert not [name for name in known["self"]["metrics"] if name.endswith(("/cut", "/lenient"))]


def test_verdicts_of_arms_that_differ(found: Analysis) -> None:
    rows = found.verdicts[(found.verdicts.measure == "retention") & (found.verdicts["at"] == "end")]
    said = {(row.a, row.b): row.verdict for row in rows.itertuples()}
    assert said == {("rft", "self"): "better", ("rft", "answers"): "better", ("self", "answers"): "better"}
    scores = found.verdicts[found.verdicts.measure == "score"]
    assert (scores.p_adjusted >= scores.p).all()


def test_trajectories_begin_at_the_base(found: Analysis) -> None:
    means = found.trajectory[(found.trajectory.replicate == "mean") & (found.trajectory.arm == "rft")]
    assert means.step.tolist() == [0, 4, 8, 16, 32]
    assert means.retention.iloc[0] == 1
    own = found.trajectory[(found.trajectory.arm == "rft") & (found.trajectory.step == 8)].set_index("replicate")
    assert own.prior["mean"] == pytest.approx(own.prior[["1", "2", "3"]].mean())


def test_one_replicate_gives_no_verdict(tmp_path: Path) -> None:
    found = analyse(compare_job(finished_study(tmp_path / "a", ARMS, Shape(replicates=1))))
    assert set(found.verdicts.verdict) == {"no verdict (one replicate)"}
    assert set(found.arms.covers) == {"questions only"}


def test_seeds_of_a_sweep_are_part_of_the_variance(tmp_path: Path) -> None:
    shape = Shape(replicates=2)
    studies = [
        finished_study(tmp_path / str(seed), ARMS, shape, {"seed": str(seed)}, seed=seed, name=f"s-{seed}", sweep="s")
        for seed in range(3)
    ]
    found = analyse(compare_job(*studies, factors={"seed": ["0", "1", "2"]}))
    assert found.arms.setting.tolist() == [""] * 3
    assert set(found.arms.covers) == {"questions, replicates and seeds"}
    assert found.arms.replicates.tolist() == [6] * 3
    retention = found.verdicts[(found.verdicts.measure == "retention") & (found.verdicts["at"] == "end")]
    assert "better" in set(retention.verdict)


def test_levels_of_a_factor_are_compared(tmp_path: Path) -> None:
    kept = {"short": 0.9, "long": 0.4}
    studies = [
        finished_study(
            tmp_path / level,
            {"self": Truth(retention=share, sd=0.02)},
            Shape(),
            {"steps": level},
            name=f"s-{level}",
            sweep="s",
            evaluation={"batch_size": number + 1},
        )
        for number, (level, share) in enumerate(kept.items())
    ]
    found = analyse(compare_job(*studies))
    rows = found.verdicts.set_index("measure")
    assert rows.loc["retention", ["factor", "arm", "a", "b", "verdict"]].tolist() == [
        *("steps", "self", "short", "long", "better")
    ]


def test_scores_that_are_not_finite_are_counted(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, Shape())
    one = next(
        one
        for one in study.evaluated
        if (one.kind, one.arm, one.step, one.benchmark) == ("records", "self", 32, "jigsaw")
    )
    table = pq.read_table(one.file.path)
    scores = [float("nan"), *table["score"].to_pylist()[1:]]
    pq.write_table(table.set_column(table.column_names.index("score"), "score", pa.array(scores)), one.file.path)
    arms = analyse(compare_job(study)).arms.set_index("arm")
    assert arms.left_out.to_dict() == {"rft": 0, "self": 1, "answers": 0}
    assert np.isfinite(arms.score["self"])


def test_a_replicate_that_was_not_evaluated_to_its_end_does_not_count(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, Shape())
    left = tuple(one for one in study.evaluated if (one.arm, one.replicate, one.step) != ("self", 2, 32))
    arms = analyse(compare_job(study.model_copy(update={"evaluated": left}))).arms.set_index("arm")
    assert arms.replicates.to_dict() == {"rft": 3, "self": 2, "answers": 3}


def test_nothing_that_finished_is_an_error(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, Shape())
    left = tuple(one for one in study.evaluated if one.arm is None)
    with pytest.raises(UserError, match="no arm has been trained and evaluated to its end"):
        analyse(compare_job(study.model_copy(update={"evaluated": left})))


def test_aliases_are_chosen_on_validation_questions(found: Analysis) -> None:
    aliases = found.aliases.set_index("alias")
    records = found.tables.records
    asked = records[(records.split == "validation") & (records.role == "target") & (records.arm != "base")]
    best = asked.groupby(["arm", "replicate", "step"], observed=True).score.mean()
    assert aliases.validation_score["best-skill"] == pytest.approx(best.max())
    assert aliases.validation_prior["best-retention"] >= aliases.validation_prior["best-skill"]
    assert set(aliases.run_id) <= set(found.tables.trainings.run_id)


def test_summary_is_strict_json(found: Analysis) -> None:
    content = summary(found)
    json.dumps(content, allow_nan=False)
    keys = "study seed data_version code evidence target prior base arms matched frontier differences aliases verdicts"
    assert set(keys.split()) <= content.keys()
    arm = content["arms"]["self"]
    assert arm["retention"].keys() == {"mean", "low", "high", "replicates", "covers"}
    assert arm["metrics"]["retention"] == pytest.approx(arm["retention"]["mean"])
    assert content["base"]["metrics"]["prior/mean/accuracy"] > 0.8
    console = Console(width=120, record=True, file=StringIO())
    console.print(arms_table(content))
    assert "self" in console.export_text()


def point(step: int, score: float, retention: float) -> Point:
    return Point(step, *(Moments(np.full(2, value), np.zeros((2, 3))) for value in (score, retention)))


def test_retention_at_the_same_score_is_interpolated() -> None:
    first = [point(0, 0.2, 1.0), point(10, 0.6, 0.8), point(20, 0.5, 0.7)]
    second = [point(0, 0.2, 1.0), point(10, 0.41, 0.5)]
    assert common_score([first, second]) == 0.41
    reached = at_score(first, 0.4)
    assert reached is not None
    assert (reached.step, reached.retention.means.tolist()) == (pytest.approx(5), pytest.approx([0.9, 0.9]))
    assert at_score(second, 0.6) is None
    assert common_score([first, [point(0, 0.2, 1.0), point(10, 0.1, 0.9)]]) is None


def test_a_more_skilled_replicate_is_corrected_by_the_slope() -> None:
    after = Point(10, *(Moments(np.array(pair), np.zeros((2, 3))) for pair in ([0.5, 0.7], [0.8, 0.8])))
    reached = at_score([point(0, 0.2, 1.0), after], 0.6)
    assert reached is not None
    # Retention falls by 0.5 per unit of score, so the replicate that is 0.1 more skilled is given 0.05.
    assert reached.retention.means.tolist() == pytest.approx([0.75, 0.85])


def test_the_front_has_no_point_that_another_beats() -> None:
    assert on_front([(0.1, 1.0), (0.5, 0.8), (0.4, 0.8), (0.6, 0.5)]) == [True, True, False, True]


def test_the_longer_half_has_half_of_all_weight() -> None:
    assert longer_weights(np.array([1, 2, 2, 3])).tolist() == [0, 0.5, 0.5, 1]
    found = split_halves(np.array([[1, 2, 3, 4]]), np.array([[1.0, 1, 0, 1]]))
    assert found["difference"].means.tolist() == [-0.5]
    assert found["longer_tokens"].means.tolist() == [3.5]


def test_a_study_that_failed_early_is_left_out(tmp_path: Path) -> None:
    study = finished_study(tmp_path / "a", ARMS, Shape())
    nothing = study.model_copy(update={"runs": (), "evaluated": ()})
    found = analyse(compare_job(study, nothing))
    assert len(found.job.studies) == len(found.tables.places) == 1
    with pytest.raises(UserError, match="no base has been evaluated"):
        analyse(compare_job(nothing))
