"""Nothing that a database does imports pandas where it is installed: an import holds every thread up for a second."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pandas")

LIFE = """
import datetime as dt, sys
import numpy as np
import omendb
from omendb import FilterOp as F

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            import traceback
            traceback.print_stack()
            sys.exit(3)

sys.meta_path.insert(0, Watch())
rng = np.random.default_rng(0)
with omendb.open(sys.argv[1]) as db:
    c = db.create_collection("c", dimension=8)
    n = 3000
    v = rng.random((n, 8), np.float32)
    columns = {
        "n": np.arange(n),
        "t": [f"text {i % 9}" for i in range(n)],
        "some": [None if i % 3 else "x" for i in range(n)],
        "few": [None if i % 3 else i for i in range(n)],
        "when": np.full(n, "2026-01-01", "M8[s]"),
        "tags": [["a", "b"][: i % 3] if i % 7 else None for i in range(n)],
        "f": np.linspace(0, 1, n),
        "b": np.arange(n) % 2 == 0,
    }
    c.upsert(np.arange(n), v, columns)
    rows = [{"n": 1, "t": "one", "o": {"deep": [1, 2]}}, {"n": 2, "b": True}]
    c.upsert(["p", "q"], v[:2], rows)
    c.update([1, 2], metadata={"n": [7, 8]})
    c.update(["p"], metadata=[{"t": "two"}])
    c.delete([3, 4])
    def ask():
        day = dt.datetime(2025, 1, 1)
        some = F.eq("n", 7), F.isin("t", ["text 1", "two"]), F.contains("tags", "a"), F.gt("f", 0.5)
        more = F.gte("when", day), F.AND(F.eq("b", True), F.lt("n", 50)), F.startswith("t", "te")
        for filters in (None, *some, *more):
            hits = c.search(v[0], k=5, filters=filters)
            hits.metadata, hits.vectors, [h.id for h in hits]
            c.search(vectors=v[:20], k=5, filters=filters)
            c.count(filters)
        c.get([1, 2, "p"])
        c.scroll(limit=100)
    ask()
    c.flush()
    ask()
    c.update(["q"], metadata=[{"t": "three"}])
    c.delete(filters=F.lt("n", 40))
    c.upsert(np.arange(100), v[:100], {"n": np.arange(100), "t": ["again"] * 100})
    c.flush()
    ask()
    c.compact()
    ask()
with omendb.open(sys.argv[1]) as db:
    c = db.collection("c")
    ask()
print("done")
"""


def test_a_whole_life_of_a_collection(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIFE, str(tmp_path / "db")], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
