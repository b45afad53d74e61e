"""One self-contained page on finished studies, and its figures: every number in it comes from the analysis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from holdfast.analysis.study import Analysis, analyse
from holdfast.analysis.summary import summary
from holdfast.benchmarks.targets.protocol import described
from holdfast.config.jobs import Compare, FinishedStudy
from holdfast.journal import strict_json
from holdfast.report import drawing, sections, theme, verdicts, words


def compare(job: Compare, out: Path) -> dict[str, Any]:
    """Write report.html, summary.json and figures/; returns the notes of the result.

    Raises:
        UserError: no study has finished evaluating, or two cannot be compared.
    """
    analysis = analyse(job)
    content = summary(analysis)
    (out / "summary.json").write_text(strict_json(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    headline = verdicts.headline(sections.rows(analysis.verdicts), sections.rows(analysis.arms))
    page = render(analysis, content, headline, drawing.draw(analysis, out / "figures"))
    (out / "report.html").write_text(page, encoding="utf-8")
    return {"arms": analysis.arms.arm.nunique(), "headline": headline, "report_bytes": len(page.encode())}


def render(analysis: Analysis, content: dict[str, Any], headline: str, drawn: dict[str, Markup]) -> str:
    """The page; all text that comes from data or models is escaped by the template engine."""
    job = analysis.job
    studies: dict[str, FinishedStudy] = {}
    for place, study in zip(analysis.tables.places, job.studies, strict=True):
        studies.setdefault(place.setting, study)
    context = {
        "job": job,
        "headline": headline,
        "drawn": drawn,
        "swatches": {name: theme.swatch(one) for name, one in drawing.looks(analysis).items()},
        "studies": studies,
        "settings": [name for name in studies if name],
        "verdicts": sections.verdict_section(analysis),
        "benchmarks": sections.benchmark_section(analysis),
        "influence": sections.influence_section(analysis, studies),
        "length_split": sections.rows(analysis.length_split),
        "flips": sections.rows(analysis.tables.flips),
        "trainings": int(analysis.arms.replicates.sum()),
        "evidence": content.get("evidence", ""),
        **sections.arms_section(analysis),
        **sections.example_section(job, studies),
        **sections.run_section(job),
    }
    return _environment().get_template("page.html.j2").render(context)


def _environment() -> Environment:
    """The pages, which escape everything and know no undefined names."""
    environment = Environment(loader=PackageLoader("holdfast.report", "."), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    shown = (words.number, words.signed, words.significant, words.duration, described)
    environment.filters |= {function.__name__: function for function in shown}
    return environment
