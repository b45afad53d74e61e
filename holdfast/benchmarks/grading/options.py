"""The one option that a text chooses by its letter; docs/graders.md has the rules.

A letter that is marked as an option's (alone, in brackets, before a full stop, after "answer is") chooses it. Another
capital that stands alone takes the choice back, so that neither `B) or C)` nor a list of all letters is paid.
"""

from __future__ import annotations

import re

from holdfast.benchmarks.grading.answer import UNPARSED, Grade, all_or_nothing, answer_text
from holdfast.benchmarks.grading.text import BLANKLESS, LETTER, normal

_LATEX = re.compile(r"\\[a-zA-Z]{1,12}(?=\s*\{)|\\[()\[\]]|[$]")
_EMPHASIS = re.compile(r"(?<!\w)([*_`\"']{1,3})\s?([A-Za-z])\s?\1(?!\w)")
_MARKUP = re.compile(r"[*`]")
_ALONE = re.compile(rf"(?<!{LETTER})(?<!\w['.&+-])[A-Za-z](?!{LETTER})(?!['&+#-]\w)(?![+#])(?!\.[A-Za-z](?![A-Za-z]))")
"""A letter that no word goes on in: not those of X-ray, don't, e.g., C++ or R&B."""
WINDOW = 32
"""Characters before a letter, and behind it, that tell what it is."""
MOST = 500
"""Single letters of a text that is read at all."""
_BRACKETED = re.compile(rf"(?<!{LETTER})[(\[{{]\s?\Z")
_LINE = re.compile(r"(?:^|\n)[^\w\n]*\Z")
_SENTENCE = re.compile(r"(?:^|[.!?:;,\n)\]}\"-])\s*\Z")
_NAMED = re.compile(r"\b(?:option|choice|letter|opci[oó]n|opzione|opç[aã]o|вариант)\W{0,3}\Z", re.IGNORECASE)
_CUE = re.compile(
    r"(?:[:=]|\b(?:answer|is|are|be|it's|choose|chose|pick|select|say|guess|think|with|ist|est|es|è|é|antwort|ответ)"
    rf"|[{BLANKLESS}])[\s(\[{{\"':-]*\Z",
    re.IGNORECASE,
)
_NOT = re.compile(r"(?:\bnot|n't)\W{1,3}\Z", re.IGNORECASE)
_BESIDE = re.compile(r"(?:\b(?:or|and|oder|und|ou|et)|[,/|])\s?\(?\Z", re.IGNORECASE)
_OR_WORD = re.compile(r"[ \t]+([A-Za-z][a-z]+)")
_AFTER_LETTER = frozenset(
    [
        "or",
        "and",
        "is",
        "was",
        "are",
        "because",
        "since",
        "as",
        "but",
        "nor",
        "not",
        "if",
        "then",
        "would",
        "could",
        "might",
        "may",
        "seems",
        "looks",
        "vs",
        "versus",
        "fits",
        "matches",
        "shows",
        "has",
        "instead",
        "rather",
        "by",
        "with",
        "for",
        "in",
        "to",
        "on",
        "at",
        "the",
        "it",
        "this",
        "that",
    ]
)
"""What no article stands before, so that the A before it is an option."""
_AFTER_I = frozenset(("or", "and", "is", "because"))
_ARTICLES = "AEOUY"
"""Words of one letter, in some language, that begin a sentence."""


def grade_choice(completion: str, answer: str) -> Grade:
    """The letter of the one option that is chosen: B, (B), **B**, B. red, The answer is B."""
    letter = the_letter(answer_text(completion) or "")
    return UNPARSED if letter is None else all_or_nothing(letter, letter == the_letter(normal(answer).strip()))


def the_letter(text: str) -> str | None:
    """The letter, as a capital, of the one option that a normal text chooses; None for none, or for several."""
    chosen, beside = _marked(text)
    return chosen.pop() if len(chosen | beside) == 1 and chosen else None


def letters(text: str) -> set[str]:
    """The letters, as capitals, that a normal text has as options, chosen or not; two stand for all further ones."""
    chosen, beside = _marked(text)
    return chosen | beside


def _marked(text: str) -> tuple[set[str], set[str]]:
    """Letters that are chosen and others beside them, up to the second; none of a text with too many."""
    text = _MARKUP.sub(" ", _EMPHASIS.sub(r"(\2)", _LATEX.sub(" ", text)))
    chosen: set[str] = set()
    beside: set[str] = set()
    for count, found in enumerate(_ALONE.finditer(text)):
        if count == MOST:
            return set(), set()
        before = text[max(0, found.start() - WINDOW) : found.start()]
        if found.start() > WINDOW:
            before = " " + before  # so that it does not look like the text's beginning
        mark = _mark(found[0], before, text[found.end() : found.end() + WINDOW])
        if mark is not None:
            (chosen if mark else beside).add(found[0].upper())
        if len(chosen | beside) > 1:
            break
    return chosen, beside


def _mark(letter: str, before: str, after: str) -> bool | None:
    """Whether a letter that stands alone is marked as the choice, or is only another option; None if it is a word."""
    closed = re.match(r"\s?[)\]}]", after)
    if (_BRACKETED.search(before) and closed) or re.match(r"[)\]]", after):
        return not _NOT.search(before.rstrip(" ([{") + " ")
    if _NAMED.search(before):
        return True
    if _is_word(letter, before, after):
        return None
    if _NOT.search(before):
        return False
    placed = bool(_LINE.search(before) or _CUE.search(before))
    if letter.isupper():
        return placed
    word = _OR_WORD.match(after)
    if placed and (re.match(r"\s*(?:[.:,;!}]|\Z|\n)", after) or (word and word[1] in _AFTER_LETTER)):
        return True
    return False if _BESIDE.search(before) else None


def _is_word(letter: str, before: str, after: str) -> bool:
    """Whether it is an article (A red car) or a pronoun (I think), by what follows."""
    follows = _OR_WORD.match(after)
    if follows is None or follows[1].lower() in (_AFTER_I if letter == "I" else _AFTER_LETTER):
        return False
    if letter.islower():
        return letter.upper() in _ARTICLES
    return letter == "I" or (letter in _ARTICLES and bool(_SENTENCE.search(before)))
