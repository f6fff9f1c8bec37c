"""A source tree as the house rules see it: its files, their text and their syntax trees.

A rule is a pure function from a `Tree` to findings, so that it can be shown a small tree with a planted
fault (`test_rules_bite.py`) as well as the repository (`test_rules_hold.py`).
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

__all__ = ["GENERATED", "PRODUCT_ROOTS", "Finding", "Module", "Rule", "Tree", "repository"]

# The source roots whose packages are OmenDB itself: what a user installs, and the faults that shake it.
PRODUCT_ROOTS = ("proto/", "common/", "datanode/", "coordinator/", "router/", "server/", "sdk/", "chaos/")
# What `make proto` writes follows its generator's manners, not the house's.
GENERATED = ("_pb2.py", "_pb2_grpc.py")


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One place that breaks a rule: `line` counts from 1, 0 is the whole file."""

    path: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}" if self.line else f"{self.path}: {self.message}"


@dataclass(frozen=True)
class Module:
    """One Python file: where it is and what it says."""

    path: str
    text: str

    @cached_property
    def syntax(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, filename=self.path)

    @property
    def stem(self) -> str:
        """The file's name without folder and ending."""
        return self.path.rsplit("/", 1)[-1].removesuffix(".py")

    @property
    def is_product(self) -> bool:
        """Whether the file belongs to OmenDB rather than to its tests and benchmarks."""
        return self.path.startswith(PRODUCT_ROOTS)

    def finding(self, node: ast.AST | int, message: str) -> Finding:
        """A finding at `node`, or at a line number."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 0)
        return Finding(self.path, line, message)


@dataclass(frozen=True)
class Tree:
    """A folder and the files in it that count, as sorted paths relative to it."""

    root: Path
    paths: tuple[str, ...] = field(repr=False)

    @staticmethod
    def of(root: Path) -> Tree:
        """Every file under `root`: for small trees made by a test."""
        return Tree(root, tuple(sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())))

    def text(self, path: str) -> str | None:
        """What stands in the file `path`, or None if it is missing or no text."""
        try:
            return (self.root / path).read_bytes().decode("utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return None

    @cached_property
    def modules(self) -> tuple[Module, ...]:
        """Every Python file of the tree that a person wrote."""
        names = (path for path in self.paths if path.endswith(".py") and not path.endswith(GENERATED))
        found = ((path, self.text(path)) for path in names)
        return tuple(Module(path, text) for path, text in found if text is not None)

    @property
    def product(self) -> Iterator[Module]:
        """The Python files of OmenDB itself."""
        return (module for module in self.modules if module.is_product)


Rule = Callable[[Tree], list[Finding]]


def repository() -> Tree:
    """The checkout that this file is part of: what git tracks, and what it would track."""
    root = Path(__file__).resolve().parents[2]
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return Tree(root, tuple(sorted(path for path in listed.split("\0") if path and (root / path).is_file())))
