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
SHORTEST_ID = 16
"""Characters of an id of a key that counts as secret: AWS's own have no fewer, and shorter ones are names of users."""
NAMED_SECRET = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|(^|_)(SSH)?PASS$|_(PWD|PAT)$"
    r"|(^|_)(SECRETS?|TOKEN|CREDENTIALS?|(AUTH|CONNECTION)_STRING)(_|$)"
    r"|(^|_)(API|ACCESS|SECRET|PRIVATE|SIGNING|ENCRYPTION|STORAGE|ACCOUNT)_?KEY(_|$)"
)
PLACE = re.compile(r"_(FILE|PATH|DIR)$")
"""Variables that say where a secret lies."""
KEY_ID = re.compile(r"ACCESS_?KEY_?ID$")
SECRET_PART = re.compile(r"(?:key|signature|password|pwd)=([^;\s]+)", re.IGNORECASE)
"""What is secret of a connection string."""
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
JSON_PART = re.compile(r'"(?:[^"\\]|\\.)*"(?P<name>\s*:)?|-?\d[\w.+-]*')
"""A string, whether or not it names a field, or a number."""
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
    return sorted(_forms(), key=len, reverse=True)


def holders(text: str) -> list[str]:
    """The variables of the environment whose secrets stand in a text."""
    return sorted({name for form, name in _forms().items() if form in text})


def _forms() -> dict[str, str]:
    """The name of its variable by a secret as it is, as JSON has it, and as an address has it."""
    return {
        form: name
        for name, value in os.environ.items()
        for secret in _secret_parts(name.upper(), value.strip())
        for form in (secret, json.dumps(secret)[1:-1], quote(secret, safe=""))
    }


def _secret_parts(name: str, value: str) -> list[str]:
    """What must be hidden of a variable's value: the whole, and a password in it that may stand alone."""
    # PWD is a shell's word for the directory that it is in, too.
    if not NAMED_SECRET.search(name) or PLACE.search(name) or (name.endswith("_PWD") and _is_directory(value)):
        return []
    if KEY_ID.search(name):
        return [value] if len(value) >= SHORTEST_ID else []
    parts = [value]
    if "AUTH_STRING" in name:
        parts.append(value.partition(":")[2])
    if "CONNECTION_STRING" in name:
        parts += SECRET_PART.findall(value)
    return [part for part in parts if len(part) >= SHORTEST]


def _is_directory(value: str) -> bool:
    return os.path.isabs(value) and os.path.isdir(value)


def shown(text: str) -> str:
    """A text for a terminal: without secrets, and with control characters spelled out but for tabs and line ends."""
    return CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", redacted(text))


def redacted_json(text: str) -> str:
    """JSON, or lines of it, with secrets taken out of its values: it stays JSON, and names of fields stay."""
    return JSON_PART.sub(_hidden_value, text) if redacted(text) != text else text


def _hidden_value(found: re.Match[str]) -> str:
    part = found[0]
    if part.startswith('"'):
        return part if found["name"] else redacted(part)
    return part if redacted(part) == part else f'"{HIDDEN}"'


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
            named = holders(value)
            of = f" ({brief(', '.join(named))} has it)" if named else ""
            raise UserError(
                f"{brief(place)}: holds a secret{of}, and what an experiment says is kept in MLflow and in reports; "
                f"remove it and set the library's environment variable instead, for example HF_TOKEN."
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
