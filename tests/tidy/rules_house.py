"""The house rules for the repository as a whole: what must be written down, and what must not."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from tests.tidy.source_tree import PRODUCT_ROOTS, Finding, Tree

__all__ = [
    "changelog_is_open",
    "components_explain_themselves",
    "dependencies_are_explained",
    "files_are_small",
    "nothing_local",
    "settings_are_documented",
    "settings_are_used",
]

FILE_BYTES_MAX = 10_000_000
SETTINGS_MODULE = "common/omendb_common/settings.py"
SETTINGS_MODULES = (
    SETTINGS_MODULE,
    "common/omendb_common/wire/frames.py",
    "coordinator/omendb_coordinator/config.py",
    "datanode/omendb_datanode/config.py",
    "router/omendb_router/config.py",
    "router/omendb_router/settings.py",
)
SETTINGS_MANUAL = "docs/omendb.example.yaml"
DEPENDENCIES = "docs/dependencies.md"

# In halves, or this file would break its own rule.
LOCAL_STRINGS = tuple(
    "".join(halves)
    for halves in (
        ("/wo", "rk/"),
        ("/ro", "ot/"),
        ("/opt/", "wheels"),
        ("pypi", ".org"),
        ("files.", "pythonhosted"),
        ("registry.", "npmjs"),
        ("deb.", "debian.org"),
    )
)
_LOCAL = re.compile("|".join(rf"(?<![\w.]){re.escape(text)}" for text in LOCAL_STRINGS))


def nothing_local(tree: Tree) -> list[Finding]:
    """No file names a folder of the machine it was written on, or the host of a package registry."""
    return [
        Finding(path, number, f"names {found[0]}, which is not everybody's")
        for path in tree.paths
        for number, line in enumerate((tree.text(path) or "").splitlines(), start=1)
        if (found := _LOCAL.search(line))
    ]


def files_are_small(tree: Tree) -> list[Finding]:
    """No file weighs more than 10 MB: larger data is made, not kept."""
    return [
        Finding(path, 0, f"{size} bytes, more than {FILE_BYTES_MAX}")
        for path in tree.paths
        if (size := (tree.root / path).stat().st_size) > FILE_BYTES_MAX
    ]


def components_explain_themselves(tree: Tree) -> list[Finding]:
    """Every folder of components has a README; that of product code numbers its invariants."""
    findings = []
    for folder in sorted({module.path.split("/")[0] for module in tree.modules if "/" in module.path}):
        page = f"{folder}/README.md"
        text = tree.text(page)
        if text is None:
            findings.append(Finding(page, 0, "is missing: say what this component is for"))
        elif f"{folder}/" in PRODUCT_ROOTS and not re.search(r"^#+ Invariants\n+(.+\n+)*?1\. ", text, re.MULTILINE):
            findings.append(Finding(page, 0, "has no numbered list under a heading 'Invariants'"))
    return findings


def dependencies_are_explained(tree: Tree) -> list[Finding]:
    """Every dependency is pinned by a range and has its reason in docs/dependencies.md."""
    project = tomllib.loads(tree.text("pyproject.toml") or "")
    reasons = tree.text(DEPENDENCIES) or ""
    findings = []
    for requirement in sorted(set(_requirements(project))):
        name = re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]
        if ">=" not in requirement or "<" not in requirement:
            findings.append(Finding("pyproject.toml", 0, f"{requirement}: give a lower and an upper bound"))
        if f"`{name.lower()}`" not in reasons.lower():
            findings.append(Finding(DEPENDENCIES, 0, f"does not say why `{name}` is needed"))
    return findings


def _requirements(project: dict[str, Any]) -> Iterator[str]:
    yield from project.get("build-system", {}).get("requires", [])
    yield from project.get("project", {}).get("dependencies", [])
    for group in project.get("project", {}).get("optional-dependencies", {}).values():
        yield from group
    for group in project.get("dependency-groups", {}).values():
        yield from (requirement for requirement in group if isinstance(requirement, str))


def changelog_is_open(tree: Tree) -> list[Finding]:
    """The changelog has a section for what is not released yet."""
    if re.search(r"^## Unreleased$", tree.text("CHANGELOG.md") or "", re.MULTILINE):
        return []
    return [Finding("CHANGELOG.md", 0, "has no section '## Unreleased'")]


def settings_are_documented(tree: Tree) -> list[Finding]:
    """Every setting stands in the sample configuration, which is the manual."""
    manual = tree.text(SETTINGS_MANUAL) or ""
    return [
        Finding(SETTINGS_MANUAL, 0, f"does not mention the setting {name}")
        for _, name, _ in _settings(tree)
        if not re.search(rf"^[#\s]*{name}:", manual, re.MULTILINE)
    ]


def settings_are_used(tree: Tree) -> list[Finding]:
    """Every setting is read by somebody: one that changes nothing is a broken promise."""
    read = {node.attr for module in tree.product for node in ast.walk(module.syntax) if isinstance(node, ast.Attribute)}
    return [
        Finding(path, line, f"nothing reads the setting {name}")
        for path, name, line in _settings(tree)
        if name not in read
    ]


def _settings(tree: Tree) -> Iterator[tuple[str, str, int]]:
    """Module, name and line of every field that carries a bound and a reason and that people may set."""
    for module in tree.modules:
        if module.path not in SETTINGS_MODULES:
            continue
        for node in ast.walk(module.syntax):
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and _is_told(node.value):
                yield module.path, node.target.id, node.lineno


def _is_told(value: ast.expr | None) -> bool:
    """Whether a field is made by ``setting(…)``, and not kept from people with ``told=False``."""
    if not (isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "setting"):
        return False
    return not any(word.arg == "told" for word in value.keywords)
