"""MLflow's searches, page after page: a store may hold thousands of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

PAGE = 1000
"""Results that are asked for at a time."""


def pages(search: Callable[..., Any], most: int | None = None) -> Iterator[Any]:
    """Everything that a search finds, page after page."""
    token = None
    while True:
        page = search(max_results=min(most or PAGE, PAGE), page_token=token)
        yield from page
        token = page.token
        if not token:
            return
