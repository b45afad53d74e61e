"""Many copies of the runs of one MLflow database, under names and ids of their own: a store that was used for long.

Rows are copied as they are, so tags, parameters, metrics and checkpoints are those of real stages. Artifacts are not:
copies share them.
"""

from __future__ import annotations

import hashlib
from typing import Any

import sqlalchemy as sa

TABLES = (
    "runs",
    "tags",
    "params",
    "metrics",
    "latest_metrics",
    "logged_models",
    "logged_model_tags",
    "logged_model_params",
    "logged_model_metrics",
    "inputs",
    "input_tags",
)
MADE_ANEW = {"holdfast.stage_key", "holdfast.models", "holdfast.digest"}
"""Tags by which runs and models are found, which copies have of their own."""
STUDY, NAMES = "smoke", {"mlflow.runName", "holdfast.study"}
"""The study that is copied, and the tags that name it."""
GROUP = 1000
"""Between the numbers of two experiments' copies."""
HOUR = 3_600_000
Row = dict[str, Any]


def multiply(uri: str, runs: int, same: int) -> dict[str, int]:
    """Copy everything until there are so many runs; `same` copies of the first study's runs stay in its experiment, the
    others each get one of their own. Returns how many runs and checkpoints there are then."""
    engine = sa.create_engine(uri)
    meta = sa.MetaData()
    meta.reflect(engine)
    with engine.begin() as db:
        rows = {name: [dict(row._mapping) for row in db.execute(sa.select(meta.tables[name]))] for name in TABLES}
        experiments = [dict(row._mapping) for row in db.execute(sa.select(meta.tables["experiments"]))]
        groups = {0}
        for number in range(1, 1 + runs // len(rows["runs"])):
            group = number if number > same else 0
            if group not in groups:
                groups.add(group)
                db.execute(meta.tables["experiments"].insert(), [_moved(one, group) for one in experiments])
            copies = _copied(rows, number, group)
            for name in TABLES:
                if copies[name]:
                    db.execute(meta.tables[name].insert(), copies[name])
        count = sa.select(sa.func.count())
        return {
            "runs": db.execute(count.select_from(meta.tables["runs"])).scalar_one(),
            "models": db.execute(count.select_from(meta.tables["logged_models"])).scalar_one(),
        }


def _moved(experiment: Row, group: int) -> Row:
    return {
        **experiment,
        "experiment_id": experiment["experiment_id"] + GROUP * group,
        "name": f"{experiment['name']}-{group}",
    }


def _copied(rows: dict[str, list[Row]], number: int, group: int) -> dict[str, list[Row]]:
    """All rows once more, in the experiments of a group, as old as their number in hours."""
    names = {"runs": "run_uuid", "logged_models": "model_id", "inputs": "input_uuid"}
    ids = {row[column]: _other(row[column], number) for table, column in names.items() for row in rows[table]}
    return {table: [_row(row, ids, number, group) for row in rows[table]] for table in TABLES}


def _row(row: Row, ids: dict[str, str], number: int, group: int) -> Row:
    found = {name: ids.get(value, value) if isinstance(value, str) else value for name, value in row.items()}
    if "experiment_id" in row:
        found["experiment_id"] = row["experiment_id"] + GROUP * group
    key = row.get("key", row.get("tag_key"))
    if key in MADE_ANEW:
        column = "value" if "value" in row else "tag_value"
        found[column] = " ".join(_other(word, number) for word in row[column].split())
    if group and key in NAMES and row["value"] == STUDY:
        found["value"] = f"{STUDY}-{group}"
    for name in ("start_time", "end_time"):
        if row.get(name):
            found[name] = row[name] - number * HOUR
    return found


def _other(name: str, number: int) -> str:
    """Another id of the same length and kind."""
    kept = name[:2] if name.startswith("m-") else ""
    digest = hashlib.sha256(f"{number}/{name}".encode()).hexdigest()
    return (kept + digest)[: len(name)] if len(name) <= 64 else digest
