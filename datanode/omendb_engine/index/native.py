"""Faiss as the engine uses it: without types, because its stubs lag behind its interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import faiss as _faiss

faiss: Any = _faiss


def on_one_thread(call: Callable[..., Any], *arguments: Any) -> None:
    """Call something of Faiss that would start a team of threads, for work that is done before a team is awake.

    A team waits for its slowest member, which on a busy machine is a time slice. The count is that of the calling
    thread only, which gets back what it had.
    """
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        call(*arguments)
    finally:
        faiss.omp_set_num_threads(before)


__all__ = [
    "faiss",
    "on_one_thread",
]
