r"""What a text states of options named by letters: "the answer is B", "option A is wrong", "option C shows a bird".

A cue (answer, choice, option) states something only with a copula, a colon or a line of its own: "option A" alone is
talk about an option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import islice

LAST = 3
"""Cues, from the end, whose sentences are looked at."""
_BE = r"(?:is|was|be|are|were|seems|looks)"
_CUE = re.compile(
    r"\b(?:answer|choice|option)\b(?:\s+(?:to|for|here)\b[^.:\n]{0,60}?)?[\"'*_`\s]{0,4}?"
    r"(?:\s(?:is|was|(?:would|should|must|will|has to)\sbe)\b|[:=]|\*{0,2}\s*\n)|\bfinal answer\b|答案[是为:]",
    re.IGNORECASE,
)
_DENIAL = " \N{NOT SIGN} "
"""What stands for a denial that is left out."""
_NOT_SO = re.compile(r"[^\w\N{NOT SIGN}]*(?:\w+ly\s)?(?:not\b|\N{NOT SIGN})", re.IGNORECASE)
_PREDICATE = re.compile(r"\b(?:is|be)\s(?:(?:the|my|an?)\s)?(?:\w+\s)?\Z", re.IGNORECASE)
"""Before the cue of "B is the right answer: …", where the colon begins an explanation."""
_LABEL = re.compile(
    r"(?:\\[a-z]{1,12}\{|\W)*(?:(?:option|choice)\s\W*)?(?:([A-Za-z])(?![\w'])[^\w\n]*)?", re.IGNORECASE
)
_ENDS = re.compile(r"[.!?](?=[\s\"')*\]}$]|\Z)|[。！？\n]|\b(?:because|since|while|whereas|although)\b", re.IGNORECASE)
_SENTENCE = re.compile(r"[^.!?\n]*(?:[.!?](?!\s|\Z)[^.!?\n]*)*(?:[.!?]|\n|\Z)")
_TAKEN_BACK = re.compile(
    r"(?:^|[.!?,;\n])\W{0,6}(?:but\s)?(?:or|no|wait|hmm|actually|maybe|perhaps|possibly|alternatively|sorry|correction|"
    r"(?:it\s)?(?:could|might|may)(?:\salso)?\sbe)\b",
    re.IGNORECASE,
)
_X = r"[\"'*_(\[]{0,3}[A-Z](?![\w'])[\"'*_)\]]{0,3}"
_XS = rf"{_X}(?:(?:,\s?(?:and\s|or\s)?|\s(?:and|or)\s){_X}){{0,9}}"
_OPTION = r"(?:(?:options?|choices?|answers?|letters?)\s)"
_DENIED = re.compile(
    # Not A, cannot be option A, neither A nor B.
    r"(?i:\b(?:not|cannot|never|neither|nor|rather\sthan|instead\sof)|n't)[*_]{0,2}\s"
    rf"(?i:(?:be|choose|pick|select)\s)?(?i:the\s)?(?i:{_OPTION})?{_X}(?:\s(?:or|nor)\s{_X}){{0,9}}"
    # Options A and C are wrong because ….
    rf"|(?<![\w'])(?i:{_OPTION})?{_XS}\s(?i:(?:{_BE}|(?:can|could|would|must)\sbe)\s(?:\w+ly\s|also\s)?"
    r"(?:wrong|incorrect|false|inaccurate|invalid|impossible|excluded|eliminated|(?:ruled\s)?out|"
    r"not(?!\s(?:wrong|incorrect|false|only|just)))|(?:cannot|can't|isn't|aren't|doesn't|does\snot|do\snot))\b[^.,;!?\n]*"
)
_ABOUT = re.compile(r"\b(?:options?|choices?)\s\W{0,3}[A-Za-z]\b(?!')", re.IGNORECASE)
_CHOOSES = re.compile(
    r"\b(?:answer|correct|right|best|better|also|too|possible|could|might|may|choose|chose|pick|select|go|going|say|think|"
    r"believe|guess)\b",
    re.IGNORECASE,
)


def without_denied(text: str) -> str:
    """Text without what is denied of letters: "not A", "option A is wrong because …"."""
    return _DENIED.sub(_DENIAL, text)


def denied(text: str) -> set[str]:
    """The letters of which a text says that they are not the answer."""
    return {letter for found in _DENIED.finditer(text) for letter in re.findall(r"(?<![\w'])[A-Z](?![\w'])", found[0])}


def without_asides(text: str) -> str:
    """Text without sentences that speak of "option X" and do not choose or offer it."""
    return "".join(part for part in _SENTENCE.findall(text) if not _is_aside(part))


def _is_aside(sentence: str) -> bool:
    return bool(_ABOUT.search(sentence) and not _CHOOSES.search(sentence) and not _TAKEN_BACK.search(sentence))


def stated(text: str, options: Mapping[str, str]) -> Iterator[str]:
    """What follows each of the last cues in its sentence, from the last on; all that follows where it is taken back."""
    for end in islice(reversed(_cues(text)), LAST):
        part, rest = _sentence(text[end:], options)
        yield part + rest if _TAKEN_BACK.search(rest) else part


def after_last_cue(text: str) -> str:
    """All that follows the last cue, without asides; nothing where there is no cue."""
    cues = _cues(text)
    return without_asides(text[cues[-1] :]) if cues else ""


def _cues(text: str) -> list[int]:
    """Where the cues end that state something."""
    return [
        cue.end()
        for cue in _CUE.finditer(text)
        if not _NOT_SO.match(text, cue.end())
        and not (cue[0].endswith(":") and _PREDICATE.search(text[max(0, cue.start() - 32) : cue.start()]))
    ]


def opening(text: str, options: Mapping[str, str]) -> tuple[str, str] | None:
    """The letter alone that a text begins with, with its option's text or without, and the rest; None for another
    beginning, and where the rest takes it back or lists others."""
    begins = re.match(r"[^\w\n]*([A-Za-z])(?:[^\w\s]*[.):]|[^\w\n]*(?:\n|\Z))", text)
    if begins is None or begins[1].upper() not in options:
        return None
    part, rest = _sentence(text, options)
    others = re.compile(rf"(?:[\n.;,]|\A)\W{{0,6}}(?!{begins[1]})[A-Za-z][*_)\]]{{0,4}}(?:[.):]|\s{{0,4}}(?:\n|\Z))")
    return None if _TAKEN_BACK.search(rest) or others.search(rest) else (part, rest)


def _sentence(text: str, options: Mapping[str, str]) -> tuple[str, str]:
    """A text's first sentence and what follows. A letter's and an option's own full stops do not end it."""
    label = _LABEL.match(text)
    assert label is not None  # it may be empty
    begun = label.end(1) if label[1] else len(text) - len(text.lstrip())
    for place in {label.end(), label.start(1) if label[1] else label.end()}:
        whole = [place + len(option) for option in options.values() if option and _begins(text, place, option)]
        begun = max([begun, *whole])
    end = _ENDS.search(text, begun)
    place = end.start() if end else len(text)
    return text[:place], text[place:]


def _begins(text: str, place: int, option: str) -> bool:
    end = place + len(option)
    return text[place:end].casefold() == option.casefold() and not text[end : end + 1].isalnum()
