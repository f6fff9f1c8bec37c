"""Open a database folder, or a throwaway one."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from typing import Any, Literal

from omendb.database import Database, FieldHints
from omendb.embedded import EmbeddedBackend
from omendb_common.config import load_settings
from omendb_common.errors import InvalidArgumentError
from omendb_common.schema import Metric, VectorDType

Mode = Literal["rw", "r"]


def open(
    path: str | os.PathLike[str],
    *,
    mode: Mode = "rw",
    durability: Literal["fsync", "interval", "os"] | None = None,
    profile: str | None = None,
    config: str | os.PathLike[str] | None = None,
    dimension: int | None = None,
    metric: Metric | None = None,
    dtype: VectorDType | None = None,
    **overrides: Any,
) -> Database:
    """Open the database in the folder ``path``, creating it when there is none.

    Args:
        path: the folder.
        mode: ``rw``, by one process at a time, or ``r``, by any number, which follow what the writer commits.
        durability: what an acknowledged write survives: ``fsync`` (the default) a power cut, ``interval`` a
            power cut but for the last ``interval_ms``, ``os`` a crash of the process.
        profile: ``developer``, ``production`` or ``cloud``, and ``speed``, ``balanced`` or ``quality``, one
            or two joined by ``+``.
        config: a YAML file of settings.
        dimension: of the default collection; inferred from the first write when None.
        metric: of the default collection: ``l2`` (when None), ``cosine`` or ``dot``.
        dtype: of the default collection: ``float32`` (when None), ``float16``, ``int8`` or ``uint8``.
        overrides: any other setting by name (``background_threads=0``); see ``docs/omendb.example.yaml``.

    Raises:
        InvalidArgumentError: a bad argument or setting, or ``path`` is something else than a database.
        DatabaseLockedError: another process has it open for writing; ``pid`` names it.
        NotFoundError: ``mode="r"`` and there is no database.
        AlreadyExistsError: the default collection exists with another dimension, metric or dtype.
        FormatVersionError: a newer release wrote it.
        CorruptionError: it is damaged; the error says where, and how to salvage the rest.
    """
    if mode not in ("rw", "r"):
        raise InvalidArgumentError(f"got {mode!r}", field="mode", bound='"rw" or "r"')
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise InvalidArgumentError(f"got {path!r}", field="path", bound="the path of a folder")
    if durability is not None:
        overrides["storage.durability"] = durability
    hints = FieldHints(dimension, metric, dtype)
    hints.check_self()
    settings = load_settings(profile, config, None, overrides).settings
    backend = EmbeddedBackend.open(os.fspath(path), mode, settings)
    try:
        return Database(backend, read_only=mode == "r", hints=hints)
    except BaseException:
        backend.close()
        raise


def DB(path: str | os.PathLike[str] | None = None, **arguments: Any) -> Database:
    """Like :func:`open`; without a path, a database in a temporary folder that is removed when it closes."""
    if path is not None:
        return open(path, **arguments)
    folder = tempfile.mkdtemp(prefix="omendb-")
    try:
        database = open(os.path.join(folder, "db"), **arguments)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # A finalizer, so that the folder also goes when the program ends without close().
    database._session.after_close = weakref.finalize(database, shutil.rmtree, folder, ignore_errors=True)
    return database


__all__ = ["DB", "Mode", "open"]
