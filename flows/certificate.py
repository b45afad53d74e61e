"""A study's certificate: put together when it ends, and written on its run."""

from __future__ import annotations

from pathlib import Path

from flows.graph import Runs
from flows.jobs import function_digests, sampled_source
from holdfast.config.methods import SFT
from holdfast.config.refs import DataRef, ModelRef, file_digest
from holdfast.config.study import Study
from holdfast.stages.sources import source_digest
from tasks import certificate, data
from tasks.certificate import Certificate
from tasks.tracking import Store


def certify(study: Study, base: ModelRef, read: DataRef, runs: Runs) -> Certificate:
    """The certificate of what has run here: `read` is the study's data, `runs` its finished stages."""
    keys = [run.digest for run in runs if run.kind in ("sample", "select")]
    parts = certificate.parts_of(study, base, data.pinned(read, keys), code_digests(study))
    return certificate.issue(parts, data.version(read.path.parents[1]))


def code_digests(study: Study) -> dict[str, str]:
    """sha256 of the sources of every kind of stage that a study has, but for its data, whose bytes count themselves."""
    stages = [stage for arm in study.trained.values() for stage in arm]
    wanted = {
        "base": study.model.is_built,
        "sample": any(sampled_source(stage) for stage in stages),
        "select": any(isinstance(stage, SFT) and stage.select is not None for stage in stages),
        "influence": study.influence is not None,
        "predictors": study.predictors is not None,
        "interpolate": len(study.trained) < len(study.arms),
        **dict.fromkeys(("train", "evaluate", "compare"), True),
    }
    functions = [function_digests(stage) for stage in stages]
    found = {kind: source_digest(kind) for kind, is_wanted in wanted.items() if is_wanted}
    return found | {f"reward {path}": one for digests in functions for path, one in digests.items()}


def write(issued: Certificate, runs: Runs, files: dict[str, str], study_run: str, store: Store) -> None:
    """Make it an artifact and a tag of the study's run. `files` has the digests of that run's other artifacts."""
    results = {run.run_id: certificate.result_digest(run.path) for run in runs}
    whole = issued.model_copy(update={"results": results, "files": files})
    store.artifacts.text(study_run, whole.model_dump_json(indent=1), certificate.ARTIFACT)
    store.tag(study_run, {certificate.TAG: issued.digest, "holdfast.commit": issued.commit})


def file_digests(report: Path, compared: str, study: Study) -> dict[str, str]:
    """Of what a study's run has beside its certificate: the report, what it compared, and the configuration."""
    named = {path.name: file_digest(path) for path in (report, report.with_name("summary.json"))}
    texts = {"compare.json": compared, "config.json": study.model_dump_json(indent=1)}
    return named | {name: certificate.text_digest(text) for name, text in texts.items()}
