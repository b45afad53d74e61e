"""What a flow run shows on Prefect's page: links to its run in MLflow, and its table with the way to the report."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.exceptions import PrefectException

from tasks import progress
from tasks.tracking import open_store

MEASURES = ("score", "retention", "forgetting")


def link_run(name: str, root: Path, run_id: str) -> None:
    """Say where the run of a study or sweep is in MLflow: in the flow's log, and as a link if that is a page."""
    link = open_store(root).link(run_id)
    progress.log(f"{name}: in MLflow, {link}")
    if link.startswith("http"):
        _publish(create_link_artifact, link=link, link_text=f"{name} in MLflow", key=_key("mlflow", name))


def publish_report(name: str, root: Path, run_id: str, summary: Path, failed: Mapping[str, str]) -> None:
    """The table of arms in Markdown, with links to the report and to the run that has it."""
    arms = json.loads(summary.read_text()).get("arms", {})
    lines = [f"# {name}", "", f"| arm | {' | '.join(MEASURES)} |", "|---|---|---|---|"]
    lines += [
        f"| {arm} | {' | '.join(_mean(values.get(measure)) for measure in MEASURES)} |" for arm, values in arms.items()
    ]
    lines += [f"| {arm} | failed: {_plain(why)} | | |" for arm, why in failed.items()]
    store = open_store(root)
    page = store.link(run_id)
    if page.startswith("http"):
        lines += ["", f"[Report]({store.link(run_id, 'report.html')}) · [run in MLflow]({page})"]
    lines += ["", f"`{summary.parent / 'report.html'}` where it was made"]
    _publish(create_markdown_artifact, markdown="\n".join(lines), key=_key("report", name))


def _publish(create: Any, **content: str) -> None:
    """What only a page shows fails no study."""
    try:
        create(**content)
    except (httpx.HTTPError, PrefectException) as error:
        progress.warn(f"Prefect's page lacks {content['key']} ({type(error).__name__}).")


def _key(kind: str, name: str) -> str:
    """As Prefect wants it: small letters, digits and dashes."""
    return f"{kind}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}"


def _row(arm: str, values: Mapping[str, Any]) -> str:
    return f"| {arm} | {' | '.join(_mean(values.get(measure)) for measure in MEASURES)} |"


def _mean(value: Any) -> str:
    mean = value.get("mean") if isinstance(value, dict) else None
    return "–" if mean is None else f"{mean:.3f}"


def _plain(text: str) -> str:
    """A sentence of a program's, with nothing that Markdown or HTML reads."""
    return re.sub(r"[^\w .,:;'/=()-]", " ", text)[:200]
