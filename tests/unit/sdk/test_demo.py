"""The demo: its arithmetic, its kill, and that it notices when something is lost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import omendb
from omendb.cli import crash
from omendb.cli.demo_data import find_data, read_corpus, recall_of
from omendb.cli.main import app
from omendb_common.errors import NotFoundError


def test_the_demo_runs_end_to_end() -> None:
    result = CliRunner().invoke(app, ["demo", "--folder", "--json", "--kills", "1"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["rows"] == 10_000 and len(report["searches"]) == 8
    assert all(search["recall"] >= 0.95 for search in report["searches"])
    assert [(c["lost"], c["phantom"]) for c in report["crashes"]] == [(0, 0)]
    assert report["crashes"][0]["acknowledged"] > 0


def test_the_data_ships_with_the_repository(tmp_path: Path) -> None:
    corpus = read_corpus(find_data(None))
    assert corpus.vectors.shape == (10_000, 384) and len(corpus.filters) == 7
    with pytest.raises(NotFoundError, match=r"meta\.json"):
        find_data(tmp_path)


def test_recall_counts_only_what_there_is_to_find() -> None:
    truth = np.array([[0, 1, -1], [2, 0, 1]])
    found = [np.array(["a", "b"], object), np.array(["c", "x"], object)]
    assert recall_of(found, truth, ["a", "b", "c"]) == pytest.approx(3 / 5)


def test_the_crash_check_sees_losses_and_phantoms(tmp_path: Path) -> None:
    """Its counting must be able to fail: take rows away, change one, add one, leave half a batch."""
    with omendb.open(tmp_path / "db", durability="os") as db:
        for number in range(3):
            db.upsert(*crash.batch_of(number))
        assert crash._compare(db, 3, 3) == (0, 0, 1500)
        assert crash._compare(db, 2, 3) == (0, 0, 1500)  # in flight, arrived whole
        assert crash._compare(db, 2, 2) == (0, 500, 1500)  # nobody sent the third
        assert crash._compare(db, 4, 4) == (500, 0, 1500)  # the fourth was promised
        db.delete([0, 1])
        db.update([2], metadata={"text": ["other"]})
        assert crash._compare(db, 3, 3) == (3, 0, 1498)
        db.delete([1000])
        assert crash._compare(db, 2, 3) == (3, 499, 1497)  # half a batch is a phantom
        db.upsert([99_999], np.zeros((1, crash.DIMENSION), np.float32))
        assert crash._compare(db, 2, 3) == (3, 500, 1498)


def test_killing_a_writer_loses_nothing(tmp_path: Path) -> None:
    report = crash.kill_and_check(tmp_path / "db", seed=7)
    assert report.acknowledged >= 5 * crash.ROWS
    assert report.found >= report.acknowledged and (report.lost, report.phantom) == (0, 0)
