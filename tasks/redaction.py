"""What must not be kept or shown: secrets in text, and characters that a terminal obeys.

Secrets are passwords in addresses and what the environment names as secret; nobody can know any others.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from holdfast.errors import UserError, brief

HIDDEN = "***"
SHORTEST = 8
"""Characters of a secret of the environment; shorter ones are words that stand in every text."""
NAMED_SECRET = re.compile(
    r"(^|_)(PASSWORDS?|PASSWD|SECRETS?|TOKEN|CREDENTIALS?|AUTH_STRING|(API|ACCESS|SECRET|PRIVATE|SIGNING)_?KEY)(_|$)"
)
PLACE = re.compile(r"_(FILE|PATH|DIR)$")
"""Variables that say where a secret lies."""
ADDRESSES = (
    # Up to the last @ before a blank or a quote: passwords are not always encoded as they should be.
    (re.compile(r"(://[^\s/@:'\"]*):[^\s'\"]*@"), rf"\1:{HIDDEN}@"),
    # A token that stands alone before the host; names of users are shorter.
    (re.compile(r"://[^\s/@:'\"]{20,}@"), f"://{HIDDEN}@"),
    (
        re.compile(
            r"([?&](?:\w*password|\w*token|secret|api_?key|sig|signature|X-Amz-(?:Signature|Credential|Security-Token))"
            r"=)[^\s&'\"#]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
)
SECRET_FIELD = re.compile(
    r"(\w+_)?(password|passwd|secret|api_key|secret_key|private_key)|((hub|push_to_hub|hf|access|auth|api)_)?token"
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def without_password(text: str) -> str:
    """A text whose addresses have no passwords, tokens or signatures."""
    for pattern, instead in ADDRESSES:
        text = pattern.sub(instead, text)
    return text


def redacted(text: str) -> str:
    """A text without passwords in addresses and without the environment's secrets."""
    text = without_password(text)
    for secret in secrets():
        text = text.replace(secret, HIDDEN)
    return text


def secrets() -> list[str]:
    """Values of the environment that are named secret, in the forms that a text may have, the longest first."""
    named = {
        value.strip()
        for name, value in os.environ.items()
        if NAMED_SECRET.search(name.upper()) and not PLACE.search(name.upper())
    }
    long = [value for value in named if len(value) >= SHORTEST]
    # As they are, as JSON has them, and as an address has them.
    forms = {form for value in long for form in (value, json.dumps(value)[1:-1], quote(value, safe=""))}
    return sorted(forms, key=len, reverse=True)


def shown(text: str) -> str:
    """A text for a terminal: without secrets, and with control characters spelled out but for tabs and line ends."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", redacted(text))


def redact_file(path: Path) -> None:
    """Take secrets out of a file of text, if it is there and has any."""
    if path.is_file():
        text = path.read_text(errors="surrogateescape")
        clean = redacted(text)
        if clean != text:
            path.write_text(clean, errors="surrogateescape")


def refuse_secrets(content: dict[str, Any]) -> None:
    """Settings are kept in MLflow and in reports, so none may be a secret. UserError that does not repeat it."""
    for place, name, value in _texts(content, ""):
        if SECRET_FIELD.fullmatch(name) or redacted(value) != value:
            raise UserError(
                f"{brief(place)}: holds a secret, and what an experiment says is kept in MLflow and in reports; remove "
                f"it and set the library's environment variable instead, for example HF_TOKEN."
            )


def _texts(content: Any, place: str, name: str = "") -> Iterator[tuple[str, str, str]]:
    """Every text with its place and the name of its field."""
    if isinstance(content, str) and content:
        yield place, name, content
    elif isinstance(content, dict):
        for key, value in content.items():
            yield from _texts(value, f"{place}.{key}".lstrip("."), str(key))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from _texts(value, f"{place}.{number}", name)
