"""One tidy table of everything that finished studies recorded. Texts stay on disk until they are asked for.

A study's questions have one order, that of its base's records. All its arms answered the same ones, so the answers of
several trainings are the rows of one array (replicates, questions).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from holdfast.analysis.questions import Questions, read_questions, refuse_incomparable
from holdfast.analysis.settings import Place, places
from holdfast.config.results import Evaluated, FinishedStudy, RunRecord
from holdfast.errors import UserError
from holdfast.journal import METRICS, read_lines

BASE = "base"
"""Stands where an arm's name would."""
MEASURED = {"correct": np.bool_, "score": np.float64, "tokens": np.int32}
OPTIONAL = {"strict": np.float32, "cut": np.float32, "lenient": np.float64}
"""Of some questions, and not in old records: NaN where they say nothing."""
THREADS = 2
WHOSE = ("study", "setting", "draw", "arm", "replicate", "stage")
TRAININGS = (*WHOSE, "run_id", "path", "seconds", "steps", "method", "source", "alarms")
ALARMS = (*WHOSE, "step", "alarm", "sentence")
PLACE = ("study", "setting", "draw", "arm", "replicate", "stage", "stage_step", "step")
"""Columns that all tables share. `study` is a name; `setting` is "" or "factor=level, …" of the factors that are
compared; `draw` is the same of the factors that only reseed (data, base); `arm` is "base" for the base, with replicate
0 and step 0; `replicate` counts from 1; `stage_step` counts in the stage, `step` over all stages of the arm."""


@dataclass(frozen=True)
class Tables:
    """What finished studies recorded."""

    records: pd.DataFrame
    """One row a question that was asked: `PLACE`, and benchmark, role (target | prior), split (test | validation),
    question (its id), image, parsed_ok, correct (bool), strict (right and in the form that was asked for, 0 or 1; NaN
    where form does not count apart), cut (the limit cut the answer off, 0 or 1; NaN where that is not known), score
    (0 to 1), lenient (a target's score, read leniently; NaN of others, and where not known), tokens (of the
    completion), file (row of `files`). Strings are categorical."""
    files: pd.DataFrame
    """One row a file of records: `PLACE`, and benchmark, role, path, digest (of its test questions), start, middle,
    stop: its rows in `records`, test questions before `middle`."""
    drift: pd.DataFrame
    """`PLACE`, and question, kl (nats per token, of one prompt)."""
    pass_at: pd.DataFrame
    """`PLACE`, and benchmark, question, right (of the most samples that any k asks for)."""
    trainings: pd.DataFrame
    """One row a training: study, setting, draw, arm, replicate, stage, run_id, path, seconds, steps, method, source
    (`grpo` for its own rollouts), alarms (how many), offset (steps of the stages before)."""
    alarms: pd.DataFrame
    """study, setting, draw, arm, replicate, stage, step (of the stage), alarm, sentence."""
    flips: pd.DataFrame
    """The noise floor, one row a study whose base was evaluated twice: study, setting, draw, questions, answers and
    verdicts (shares that differ between two batch sizes)."""
    places: tuple[Place, ...]
    """The studies in order, each with its setting and draw."""


def load(studies: Sequence[FinishedStudy]) -> Tables:
    """Read the records of finished studies.

    Raises:
        UserError: two studies cannot be compared, or an evaluation lacks questions that its base was asked.
    """
    where = places(studies)
    trainings, alarms = _trainings(studies, where)
    asked = [read_questions(study) for study in studies]
    refuse_incomparable([study.study.experiment for study in studies], where, asked)
    own = {place.study: questions for place, questions in zip(where, asked, strict=True)}
    files = pd.concat([_files(*one, trainings) for one in zip(studies, where, strict=True)], ignore_index=True)
    of_records = files[files["kind"] == "records"].reset_index(drop=True)
    records, of_records = _records(of_records, own)
    return Tables(
        records=records,
        files=of_records.drop(columns="kind"),
        drift=_small(files, "drift", {"id": "question", "kl": "kl"}),
        pass_at=_small(files, "pass_at", {"id": "question", "right": "right"}),
        trainings=trainings,
        alarms=alarms,
        flips=_flips(of_records[of_records["arm"] == BASE]),
        places=where,
    )


def _trainings(studies: Sequence[FinishedStudy], places: Sequence[Place]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`Tables.trainings` and `Tables.alarms`, in the order of the files' arms."""
    rows: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    for study, place in zip(studies, places, strict=True):
        order = list(study.study.arms)
        trained = [run for run in study.runs if run.kind == "train" and run.arm in order]
        for run in sorted(trained, key=lambda run: (order.index(str(run.arm)), run.replicate, run.stage)):
            own, lines = whose(run), journal(run)
            gone_off = [place.columns | own | line for line in lines if "alarm" in line]
            evaluated = [one.step for one in study.evaluated if whose(one) == own]
            stage = study.study.arms[str(run.arm)][run.stage]
            rows.append(
                place.columns
                | own
                | run.model_dump(include={"run_id", "path", "seconds"})
                | {"steps": max([0, *evaluated, *(line["step"] for line in lines if "step" in line)])}
                | {"method": stage.method, "source": stage.source.kind if stage.method == "sft" else stage.method}
                | {"alarms": len(gone_off)}
            )
            alarms += gone_off
    trainings = pd.DataFrame(rows, columns=TRAININGS)
    steps = trainings.groupby(["study", "arm", "replicate"], sort=False)["steps"]
    return trainings.assign(offset=steps.cumsum() - trainings["steps"]), pd.DataFrame(alarms, columns=ALARMS)


def whose(run: RunRecord | Evaluated) -> dict[str, Any]:
    """Arm, replicate and stage of a run, or of a file that an evaluation left."""
    return {"arm": run.arm, "replicate": run.replicate, "stage": run.stage}


def journal(run: RunRecord) -> list[dict[str, Any]]:
    """All lines of a run's journal; none where it left none."""
    path = Path(run.path) / METRICS
    return read_lines(path) if path.is_file() else []


def _files(study: FinishedStudy, place: Place, trainings: pd.DataFrame) -> pd.DataFrame:
    """One row a file that an evaluation left, in the order of arms, replicates, steps and benchmarks."""
    own = trainings[trainings["study"] == place.study]
    offsets = {(row.arm, row.replicate, row.stage): row.offset for row in own.itertuples()}
    targets = list(study.study.all_targets)
    benchmarks = [*targets, *(prior.name for prior in study.study.prior)]
    arms = [None, *study.study.arms]
    known = [one for one in study.evaluated if one.arm in arms and one.benchmark in benchmarks]
    known.sort(key=lambda o: (arms.index(o.arm), o.replicate, o.stage, o.step, benchmarks.index(o.benchmark)))
    rows = [
        place.columns
        | one.model_dump(include={"replicate", "stage", "benchmark", "kind"})
        | {"arm": one.arm or BASE, "stage_step": one.step, "path": str(one.file.path)}
        | {"step": offsets.get((one.arm, one.replicate, one.stage), 0) + one.step}
        | {"role": "target" if one.benchmark in targets else "prior"}
        for one in known
    ]
    return pd.DataFrame(rows, columns=[*PLACE, "benchmark", "role", "kind", "path"])


def _records(files: pd.DataFrame, asked: dict[str, dict[str, Questions]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """All rows, and the files with their rows' numbers."""
    for row in files.itertuples():
        if row.benchmark not in asked[row.study]:
            raise UserError(f"{row.study}: {row.arm} was asked {row.benchmark}, and the base was not")
    questions = [asked[row.study][row.benchmark] for row in files.itertuples()]
    with ThreadPoolExecutor(THREADS) as pool:
        read = list(pool.map(_read, files.itertuples(), questions))
    lengths = np.array([len(one.ids) for one in questions], np.int64)
    stop = np.cumsum(lengths)
    middle = stop - lengths + [one.tested for one in questions]
    files = files.assign(digest=[one.digest for one in questions], start=stop - lengths, middle=middle, stop=stop)
    own = np.repeat(np.arange(len(files), dtype=np.int32), lengths)
    numbers = dict.fromkeys(("replicate", "stage", "stage_step", "step"), np.int32)
    words = [name for name in (*PLACE, "benchmark", "role") if name not in numbers]
    kinds = numbers | {name: pd.CategoricalDtype(files[name].unique()) for name in words}
    records = files[[*PLACE, "benchmark", "role"]].astype(kinds).take(own).reset_index(drop=True)
    validating = (np.arange(len(own)) >= middle[own]).astype(np.int8)
    records["split"] = pd.Categorical.from_codes(validating, ["test", "validation"])
    records["question"] = _categorical([one.ids for one in questions])
    records["image"] = _categorical([one.images for one in questions])
    for name in ("parsed_ok", *OPTIONAL, *MEASURED):
        records[name] = np.concatenate([one.pop(name) for one in read])
    return records.assign(file=own), files


def _categorical(columns: Sequence[np.ndarray]) -> pd.Categorical:
    """Many columns of strings, of which few differ, one after the other."""
    numbers: dict[str, int] = {}
    codes: dict[int, np.ndarray] = {}
    for column in columns:
        if id(column) not in codes:
            codes[id(column)] = np.array([numbers.setdefault(one, len(numbers)) for one in column], np.int32)
    return pd.Categorical.from_codes(np.concatenate([codes[id(column)] for column in columns]), list(numbers))


def _read(row: Any, questions: Questions) -> dict[str, np.ndarray]:
    """The measured columns of a file, in the order of the base's questions."""
    columns = ["split", "id", "grader", "parsed", *OPTIONAL, *MEASURED]
    table = pq.ParquetFile(row.path).read(columns, use_threads=False)
    order = questions.order
    if not table.select(["split", "id"]).equals(questions.keys):
        order = _matching(row, table, questions)
    if (table["grader"].to_numpy()[order] != questions.graders).any():
        raise UserError(f"{row.study}: {row.benchmark} is graded otherwise for {row.arm} than for the base")
    measured = {name: table[name].to_numpy()[order].astype(kind, copy=False) for name, kind in MEASURED.items()}
    measured |= {name: _known(table, name)[order].astype(kind) for name, kind in OPTIONAL.items()}
    return measured | {"parsed_ok": table["parsed"].is_valid().to_numpy()[order]}


def _known(table: pa.Table, name: str) -> np.ndarray:
    """A column as numbers; not in old records."""
    known = name in table.column_names
    return table[name].cast(pa.float64()).to_numpy() if known else np.full(len(table), np.nan)


def _matching(row: Any, table: pa.Table, questions: Questions) -> np.ndarray:
    """Rows of a file in the order of the base's questions, which must be the same ones."""
    own, base = (pd.MultiIndex.from_frame(keys.select(["split", "id"]).to_pandas()) for keys in (table, questions.keys))
    if own.has_duplicates or len(own) != len(base) or len(own.difference(base)):
        raise UserError(f"{row.study}: {row.arm} was asked other questions of {row.benchmark} than the base")
    return own.get_indexer(base[questions.order])


def _small(files: pd.DataFrame, kind: str, columns: dict[str, str]) -> pd.DataFrame:
    """Drift or pass@k: one row a prompt."""
    named = [*PLACE, "benchmark", *columns.values()]
    found = []
    for _, row in files[files["kind"] == kind].iterrows():
        read = pq.ParquetFile(row["path"]).read(list(columns)).to_pandas().rename(columns=columns)
        found.append(read.assign(**row[[*PLACE, "benchmark"]]))
    return pd.concat(found, ignore_index=True)[named] if found else pd.DataFrame(columns=named)


def _flips(of_base: pd.DataFrame) -> pd.DataFrame:
    """Noted by the run that evaluated the base, where it asked twice."""
    rows = []
    for _, row in of_base.drop_duplicates("study").iterrows():
        result = Path(row["path"]).parents[2] / "result.json"
        noted = json.loads(result.read_text())["notes"].get("flips") if result.is_file() else None
        if noted:
            rows.append(row[["study", "setting", "draw"]].to_dict() | noted)
    return pd.DataFrame(rows, columns=["study", "setting", "draw", "questions", "answers", "verdicts"])
