"""Files that lost their end or a bit, and a database that a process was writing when it died."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from pathlib import Path

WRITER = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
# So little room that the transaction goes to the file, and the old pages to the journal, before it ends.
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE experiments SET lifecycle_stage = 'deleted'")
connection.execute("CREATE TABLE begun (line TEXT)")
numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) SELECT i FROM n"
connection.execute(f"INSERT INTO begun SELECT printf('%0500d', i) FROM ({numbers})")
connection.execute("UPDATE tags SET value = value || 'x'")
connection.execute("UPDATE metrics SET value = value + 1")
connection.execute("UPDATE runs SET status = 'FAILED'")
os.kill(os.getpid(), 9)
"""


def damaged(path: Path, how: str, drawn: random.Random) -> None:
    """Cut a file off at a drawn place, or flip one drawn bit of it."""
    # Caches are not writable, which damage does not ask for; and what is linked elsewhere stays whole there.
    content = bytearray(path.read_bytes())
    if how == "truncated":
        content = content[: drawn.randrange(len(content))]
    else:
        content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
    path.unlink()
    path.write_bytes(content)


def hot_journal(database: Path) -> Path:
    """A database in the middle of a transaction whose process was killed, and the journal that takes it back."""
    subprocess.run([sys.executable, "-c", WRITER, str(database)], check=False)
    journal = database.with_name(f"{database.name}-journal")
    assert journal.stat().st_size, sqlite3.sqlite_version
    return journal
