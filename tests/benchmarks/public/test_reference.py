"""Our scores are those of lmms-eval and lm-evaluation-harness, on the same completions.

`reference_scores.json` has theirs, as `make scorers` recorded them with the versions that it names. That target's
environment has both packages; with HOLDFAST_SCORERS set to its Python, the record is made anew and must be the same.
"""

from __future__ import annotations

import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import asked_completions
import pytest
import reference_scores

from holdfast.benchmarks.public.benchmarks import MODULES
from holdfast.benchmarks.public.questions import metrics
from holdfast.evaluation.harness_samples import Sample, graded
from holdfast.evaluation.lmms_samples import METRICS, row

RECORDED = json.loads(Path(__file__).with_name("reference_scores.json").read_text())
SCORERS = os.environ.get("HOLDFAST_SCORERS")
ASKED: dict[str, list[dict[str, Any]]] = {}
for one in asked_completions.asked():
    ASKED.setdefault(one["benchmark"], []).append(one)
HERE = [name for name in ASKED if name != "math500" or find_spec("math_verify")]


@pytest.mark.parametrize("name", HERE)
def test_each_completion_has_the_harnesss_score(name: str) -> None:
    asked, theirs = ASKED[name], RECORDED["scores"][name]
    assert len(asked) == len(theirs)
    assert len({tuple(scores) for scores in theirs}) > 1
    for one, scores in zip(asked, theirs, strict=True):
        found = MODULES[name].grade(one["completion"], one["doc"])
        ours = [found.authors, float(bool(found.strict))][: len(scores)]
        assert ours == pytest.approx(scores, abs=1e-5), one


@pytest.mark.parametrize("name", RECORDED["aggregates"])
def test_all_completions_have_the_harnesss_metrics(name: str) -> None:
    asked = ASKED[name]
    if name == "mme":
        # Their pairs are two answers with one id; here the many completions are paired as they come.
        asked = paired(asked)
    found = graded([Sample(one["doc"], one["completion"], {}, str(n)) for n, one in enumerate(asked)], name)
    assert RECORDED["aggregates"][name] == {
        measure: pytest.approx(metrics(name, found.records)[measure], abs=1e-5)
        for measure in RECORDED["aggregates"][name]
    }


def paired(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Completions of MME with ids that two of them share, as the harness is given them."""
    return [reference_scores.as_pair(one, number) for number, one in enumerate(asked)]


@pytest.mark.slow
@pytest.mark.skipif(not SCORERS, reason="make scorers sets HOLDFAST_SCORERS")
def test_the_record_is_what_the_harnesses_say_today() -> None:
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in asked_completions.asked())
    done = subprocess.run(
        [str(SCORERS), reference_scores.__file__], input=lines, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == RECORDED


@pytest.mark.parametrize("name", [name for name in ASKED if name in METRICS])
def test_an_exported_row_has_what_lmms_evals_task_makes_of_the_answer_and_its_loader_reads(
    name: str, tmp_path: Path
) -> None:
    loader = pytest.importorskip("lmms_eval.baselines.loader", reason="make scorers has lmms-eval")
    samples = [Sample(one["doc"], one["completion"], {}, str(number)) for number, one in enumerate(ASKED[name])]
    file = tmp_path / "20260806_102223_samples_x.jsonl"
    lines = []
    for sample, record in zip(samples, graded(samples, name).records, strict=True):
        lines.append(row(int(sample.id), sample.doc, record, sample.completion))
        for metric, theirs in reference_scores.results(name, sample.doc, sample.completion).items():
            # Of MMMU, they draw an option where there is none, and keep all that an open answer may be.
            known = {field: value for field, value in theirs.items() if field != "parsed_pred"}
            assert {field: lines[-1][metric].get(field) for field in known} == known
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    # It passes over an empty answer, in a file of its own too.
    given = {int(sample.id) for sample in samples if sample.completion}
    assert set(loader.load_baseline(str(file), name)[0]) == given
