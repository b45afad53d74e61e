"""Questions that are answered by yes or no: MME (Fu et al. 2023) and POPE (Li et al. 2023).

They share their suffix and differ in reading: MME looks at the first four characters, POPE at nothing but `yes` and
`no`, so that "Yes." is wrong there. `correct` asks both for the one of the two words that was said.
"""

from __future__ import annotations

import re

from holdfast.benchmarks.grading.lenient import final_answer

SUFFIX = "\nAnswer the question using a single word or phrase."
_WORD = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
WORDS = ("yes", "no")


def said(completion: str) -> str | None:
    """The one of the two words that a completion has, or that it begins with; None for neither."""
    text = final_answer(completion)
    found = [word.lower() for word in _WORD.findall(text)]
    if len(set(found)) == 1:
        return found[0]
    begins = re.match(r"\W*(yes|no)\b\s*[.,;:!—-]", text, re.IGNORECASE)
    return begins[1].lower() if begins else None
