"""What the Hub refuses is one sentence, before anything is downloaded. The Hub is a server of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "a" * 40
PROGRAM = """
import sys
from holdfast.benchmarks.public.questions import require
from holdfast.config.prior import PublicPrior
from holdfast.errors import UserError
for name in sys.argv[1:]:
    try:
        require(PublicPrior(benchmark="gsm8k", data=f"owner/{name}", revision="REVISION", config="main"))
    except UserError as error:
        print(error)
"""


class Hub(BaseHTTPRequestHandler):
    """Refuses as the Hub does: by a status and a code in the header. About one set it hangs up."""

    def do_HEAD(self) -> None:
        if "/broken/" in self.path:
            self.close_connection = True
            return
        status, code = (404, "RevisionNotFound") if "/revised/" in self.path else (401, "RepoNotFound")
        if "/gated/" in self.path:
            status, code = 401, "GatedRepo"
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def refused(place: str, cache: Path, *names: str) -> list[str]:
    """What is said about data sets; the client reads where the Hub is when it is imported."""
    where = {"HF_HUB_OFFLINE": "1"} if place == "offline" else {"HF_ENDPOINT": place}
    environment = {**os.environ, **where, "HF_HOME": str(cache), "no_proxy": "127.0.0.1", "HF_TOKEN": ""}
    program = PROGRAM.replace("REVISION", COMMIT)
    done = subprocess.run(
        [sys.executable, "-c", program, *names], env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def test_a_gated_a_private_and_a_set_without_the_revision_are_told_apart(hub: str, tmp_path: Path) -> None:
    gated, private, revised = refused(hub, tmp_path, "gated", "private", "revised")
    start = "prior.gsm8k: cannot load split 'test' of owner/"
    assert gated == f"{start}gated (is gated: ask for access on its page, and set HF_TOKEN to a token of yours)."
    assert private == f"{start}private (the Hub has no such data set, or it is private: set HF_TOKEN)."
    assert revised.startswith(f"{start}revised (Revision '{COMMIT}' doesn't exist")


def test_a_connection_that_breaks_off_is_one_sentence_too(hub: str, tmp_path: Path) -> None:
    [told] = refused(hub, tmp_path, "broken")
    assert told == (
        "prior.gsm8k: cannot load split 'test' of owner/broken (Server disconnected without sending a response)."
    )


@pytest.mark.slow
def test_without_a_network_another_cached_revision_is_not_taken(tmp_path: Path) -> None:
    [told] = refused("offline", tmp_path, "gsm8k")
    assert told.endswith("(the Hub cannot be reached; name a local copy, or come back with a network).")
    cached = tmp_path / "datasets" / "owner___gsm8k" / "main" / "0.0.0" / ("b" * 40)
    cached.mkdir(parents=True)
    (cached / "dataset_info.json").write_text('{"config_name": "main"}')
    [told] = refused("offline", tmp_path, "gsm8k")
    assert f"the cache has revision {'b' * 40} instead of {COMMIT}" in told
