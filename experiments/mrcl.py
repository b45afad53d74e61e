"""The tasks of "RL Forgets!" (arXiv 2607.04364) as files that `target: {benchmark: banner}` reads, and their reward.

    hf download MaolinLuo/MRCL --repo-type dataset --revision 0a4545c105f92073131ccb00c1fe358e039cce8b --local-dir mrcl
    unzip -q mrcl/MedBookVQA/images.zip -d mrcl/MedBookVQA; unzip -q mrcl/Puzzle/images.zip -d mrcl/Puzzle
    python experiments/mrcl.py mrcl

writes train.jsonl and test.jsonl of both tasks beside their `images` and `jsons`. Layout, prompt and reward are those
of the authors' code, as YuliangCai667/Multimodal-Continual-RLVR has it (src/dataset/grpo_dataset.py, prompts_2.yaml,
src/train/reward_funcs.py).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

TASKS = ("MedBookVQA", "Puzzle")
"""Those whose answers are the letter of an option; formulas, paths and several options need the graders of theirs."""
PROMPT = (
    "You are an AI assistant helping to solve the following problem based on the image(s). Instructions: Please think "
    "step-by-step and put the final answer in \\boxed{}. Rules for the final answer in \\boxed{}: - Multiple Choice: "
    "Output the uppercase option letter ONLY (e.g., A, B, C, D, E...). "
)
LEAST_WORDS = 20


def too_short(completions: Sequence[Any], **_: Any) -> list[float]:
    """Minus one half for less than 20 words."""
    return [-0.5 if len(messages[0]["content"].split()) < LEAST_WORDS else 0.0 for messages in completions]


def rows(task: Path, split: str) -> list[dict[str, str]]:
    """Image, question and answer of each record. Refuses records of another layout."""
    records = json.loads((task / "jsons" / split / "data.json").read_text(encoding="utf-8"))
    return [_row(record, f"{task.name}/{split}, record {number}") for number, record in enumerate(records, 1)]


def _row(record: Any, place: str) -> dict[str, str]:
    try:
        asked, answered = record["conversations"]
        image, question, answer = record["image"], asked["value"], answered["value"].strip()
    except (TypeError, KeyError, ValueError, AttributeError):
        raise SystemExit(f"{place}: has no image and two conversations; is this MaolinLuo/MRCL at 0a4545c?") from None
    if not re.fullmatch("[A-Za-z]", answer):
        raise SystemExit(f"{place}: the answer {answer[:40]!r} is no letter; this task needs another grader.")
    text = " ".join(re.sub(r"<image>", " ", question).split())
    return {"image": f"images/{image}", "question": PROMPT + text, "answer": answer}


def main(root: Path) -> None:
    """Write both tasks' files, and say how many rows they have."""
    for task in TASKS:
        for split in ("train", "test"):
            found = rows(root / task, split)
            file = root / task / f"{split}.jsonl"
            file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found), encoding="utf-8")
            print(f"{file}: {len(found)} questions")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("python experiments/mrcl.py DIR, where DIR has MedBookVQA and Puzzle")
    main(Path(sys.argv[1]))
