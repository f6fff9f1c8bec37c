"""Faiss as the engine uses it: without types, because its stubs lag behind its interface."""

from __future__ import annotations

from typing import Any

import faiss as _faiss

faiss: Any = _faiss


__all__ = [
    "faiss",
]
