"""What lmms-eval and lm-evaluation-harness score: run by the Python of an environment that has both (`make scorers`).

Reads lines of {"benchmark", "doc", "completion"} and writes one object: their scores in the same order, by benchmark,
as [authors] or [authors, strict], and their aggregates of all lines.
`python tests/support/reference_scores.py < ASKED.jsonl > SCORES.json`
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

TASKS = {
    "gsm8k": "gsm8k/gsm8k.yaml",
    "mmlu-pro": "mmlu_pro/_default_template_yaml",
    "arc": "arc/arc_challenge_chat.yaml",
    "gpqa": "gpqa/cot_zeroshot/_gpqa_cot_zeroshot_yaml",
}
"""lm-evaluation-harness's tasks whose filters and comparison stand in a file."""
STRICT = {"gsm8k": "strict-match", "gpqa": "strict-match"}


def lmms(name: str) -> Any:
    """A module of lmms-eval's tasks."""
    return import_module(f"lmms_eval.tasks.{name}")


def by_file(benchmark: str, doc: dict[str, Any], completion: str) -> dict[str, float]:
    """By filter, whether the harness finds a completion right."""
    import lm_eval
    import lm_eval.filters
    import yaml
    from jinja2 import Template
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.api.registry import get_filter

    path = Path(lm_eval.__file__).parent / "tasks" / TASKS[benchmark]
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!function", lambda _loader, node: node.value)
    task = yaml.load(path.read_text(), loader)
    for text in task["generation_kwargs"]["until"]:
        completion = completion.split(text)[0]
    target = doc["answer"] if task["doc_to_target"] == "answer" else Template(task["doc_to_target"]).render(**doc)
    [metric] = task["metric_list"]
    how = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore") if key in metric}
    found = {}
    for one in task["filter_list"]:
        given = [[completion]]
        for step in one["filter"]:
            arguments = {key: value for key, value in step.items() if key != "function"}
            given = list(get_filter(step["function"])(**arguments).apply(given, [doc]))
        value = given[0][0] if isinstance(given[0], list) else given[0]
        score = exact_match_hf_evaluate(predictions=[value], references=[target], **how)["exact_match"]
        found[one["name"]] = float(score)
    return found


def scored(benchmark: str, doc: dict[str, Any], completion: str) -> dict[str, Any]:
    """`authors`, and `strict` where the harness has two readings, of one completion; `raw` for aggregates."""
    if benchmark in TASKS:
        found = by_file(benchmark, doc, completion)
        strict = STRICT.get(benchmark)
        [authors] = [value for name, value in found.items() if name != strict]
        return {"authors": authors, **({"strict": found[strict]} if strict else {})}
    if benchmark == "math500":
        module = import_module("lm_eval.tasks.minerva_math.utils")
        return {"authors": float(module.process_results(doc, [completion])["math_verify"])}
    if benchmark == "docvqa":
        anls = import_module("lmms_eval.api.metrics").anls
        return {"authors": float(anls(doc["answers"], [completion])["anls"])}
    if benchmark == "refcoco":
        module = lmms("refcoco.utils_rec")
        raw = module.refcoco_bbox_rec_process_result(doc, [completion])["refcoco_IoU"]
        return {"authors": float(module.compute_iou(raw["bbox"], raw["pred"])), "raw": raw}
    if benchmark == "mmmu":
        return mmmu(doc, completion)
    found = getattr(lmms(f"{benchmark}.utils"), f"{benchmark}_process_results")(doc, [completion])
    raw = list(found.values())[-1]
    return {"authors": float(raw["score"]), "raw": raw}


def results(benchmark: str, doc: dict[str, Any], completion: str) -> dict[str, dict[str, Any]]:
    """What lmms-eval logs of an answer, by metric; nothing of DocVQA's, which is a number."""
    if benchmark == "docvqa":
        return {}
    if benchmark == "refcoco":
        return dict(lmms("refcoco.utils_rec").refcoco_bbox_rec_process_result(doc, [completion]))
    found = getattr(lmms(f"{benchmark}.utils"), f"{benchmark}_process_results")(doc, [completion])
    return {name: value for name, value in found.items() if name not in ("submission", "mmmu_acc_pass_at_k")}


def as_pair(asked: dict[str, Any], number: int) -> dict[str, Any]:
    """A completion of MME as one of the two of a pair, which the many forms of completions are dealt out to."""
    return {**asked, "doc": {**asked["doc"], "question_id": f"pair {number // 2}"}}


def mmmu(doc: dict[str, Any], completion: str) -> dict[str, Any]:
    """By the functions of MMMU's authors that lmms-eval carries: of an open question all that they read counts, which
    lmms-eval itself cuts to one; where an option would be drawn at random there is none."""
    module = lmms("mmmu.utils")
    shared = import_module("lmms_eval.tasks._task_utils.mmmu_mcq_utils")
    shared.random.choice = lambda _: None
    if doc["question_type"] == "multiple-choice":
        index, letters = module.get_multi_choice_info(module.ast.literal_eval(doc["options"]))
        letter = module.parse_multi_choice_response(completion, letters, index)
        return {"authors": float(module.eval_multi_choice(doc["answer"], letter))}
    return {"authors": float(module.eval_open(doc["answer"], module.parse_open_response(completion)))}


def aggregates(benchmark: str, raw: list[Any]) -> dict[str, float]:
    """lmms-eval's numbers for all completions of a benchmark."""
    if benchmark == "mme":
        kinds: dict[str, list[Any]] = defaultdict(list)
        module = lmms("mme.utils")
        for one in raw:
            kinds["perception" if one["category"] in module.eval_type_dict["Perception"] else "cognition"].append(one)
        return {f"authors_{kind}": module.mme_aggregate_results(rows) for kind, rows in kinds.items()}
    if benchmark == "mmstar":
        return {"authors_average": lmms("mmstar.utils").mmstar_aggregate_results(raw)}
    if benchmark == "pope":
        module = lmms("pope.utils")
        return {
            "authors_accuracy": module.pope_aggregate_accuracy(raw),
            "authors_f1": module.pope_aggregate_f1_score(raw),
        }
    if benchmark == "refcoco":
        module = lmms("refcoco.utils_rec")
        return {
            "authors_accuracy": module.refcoco_bbox_rec_acc05(raw),
            "authors_iou": module.refcoco_bbox_rec_iou(raw),
        }
    return {}


def main() -> None:
    """Score stdin; what the libraries print goes to stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    raw: dict[str, list[Any]] = defaultdict(list)
    scores: dict[str, list[list[float]]] = defaultdict(list)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["benchmark"] == "mme":
            asked = as_pair(asked, len(scores["mme"]))
        found = scored(**asked)
        scores[asked["benchmark"]].append([round(found[name], 6) for name in ("authors", "strict") if name in found])
        if "raw" in found:
            raw[asked["benchmark"]].append(found["raw"])
    versions = {name: version(name) for name in ("lm-eval", "lmms-eval", "math-verify")}
    totals = {benchmark: aggregates(benchmark, rows) for benchmark, rows in raw.items()}
    json.dump({"versions": versions, "scores": scores, "aggregates": totals}, out)
    out.write("\n")


if __name__ == "__main__":
    main()
