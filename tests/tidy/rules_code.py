"""The house rules for Python files: size, names, and what a module says about itself."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.tidy.source_tree import Finding, Module, Tree

__all__ = [
    "drawer_names",
    "files_too_long",
    "functions_too_long",
    "most_files_short",
    "opening_sentences",
    "public_names",
    "unfinished_work",
]

FILE_LINES_MAX = 700
# A file may pass the ideal with good reason; when many do, files are cut at the wrong seams.
FILE_LINES_IDEAL = 400
SHARE_ABOVE_IDEAL_MAX = 0.10
FUNCTION_LINES_MAX = 75

# A drawer's name says nothing, so anything ends up in it.
DRAWERS = frozenset({"utils", "util", "helpers", "helper", "misc", "common", "base", "stuff"})
DRAWERS_ALLOWED = {
    "datanode/omendb_engine/index/base.py": "the one protocol that every index follows, in a package of indexes",
}

# Written in two halves, or this file would break its own rule.
_UNFINISHED = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
_UNWRITTEN = "NotImplemented" + "Error"
_Function = ast.FunctionDef | ast.AsyncFunctionDef


def opening_sentences(tree: Tree) -> list[Finding]:
    """Every module opens with one plain sentence: a docstring whose first line ends with '.' or ':'."""
    findings = []
    for module in tree.modules:
        docstring = ast.get_docstring(module.syntax)
        if not docstring:
            findings.append(module.finding(0, "no docstring: say in one sentence what this module is"))
        elif not docstring.splitlines()[0].rstrip().endswith((".", ":")):
            findings.append(module.finding(1, "the docstring's first line is not one sentence ending in '.' or ':'"))
    return findings


def files_too_long(tree: Tree) -> list[Finding]:
    """No Python file has more than 700 lines."""
    return [
        module.finding(0, f"{_lines(module)} lines, more than {FILE_LINES_MAX}: more than one subject?")
        for module in tree.modules
        if _lines(module) > FILE_LINES_MAX
    ]


def most_files_short(tree: Tree) -> list[Finding]:
    """At most one product file in ten has more than 400 lines."""
    product = list(tree.product)
    long = [module for module in product if _lines(module) > FILE_LINES_IDEAL]
    if len(long) <= SHARE_ABOVE_IDEAL_MAX * len(product):
        return []
    return [module.finding(0, f"{_lines(module)} lines, one of {len(long)} files of over 400") for module in long]


def _lines(module: Module) -> int:
    return module.text.count("\n")


def functions_too_long(tree: Tree) -> list[Finding]:
    """No function of the product has more than 75 lines; its docstring does not count."""
    return [
        module.finding(function, f"{function.name} has {length} lines, more than {FUNCTION_LINES_MAX}")
        for module in tree.product
        for function in _functions(module)
        if (length := _function_lines(function)) > FUNCTION_LINES_MAX
    ]


def _functions(module: Module) -> Iterator[_Function]:
    return (node for node in ast.walk(module.syntax) if isinstance(node, _Function))


def _function_lines(function: _Function) -> int:
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        docstring = function.body[0]
        length -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return length


def drawer_names(tree: Tree) -> list[Finding]:
    """No module or package is called utils, helpers, misc, common, base or the like."""
    findings = []
    for module in tree.modules:
        name = module.path.split("/")[-2] if module.stem == "__init__" and "/" in module.path else module.stem
        if name in DRAWERS and module.path not in DRAWERS_ALLOWED:
            findings.append(module.finding(0, f"'{name}' says nothing: name the subject"))
    return findings


def unfinished_work(tree: Tree) -> list[Finding]:
    """Nothing is left for later: no notes to self in any text, no function without a body."""
    findings = []
    for path in tree.paths:
        text = tree.text(path) if not path.startswith("data/") else None
        for number, line in enumerate((text or "").splitlines(), start=1):
            if note := _UNFINISHED.search(line):
                findings.append(Finding(path, number, f"{note[0]}: do it, or file it where work is kept"))
    for module in tree.product:
        findings += [
            module.finding(node, f"{_UNWRITTEN}: write it, or make the interface a Protocol")
            for node in ast.walk(module.syntax)
            if isinstance(node, ast.Raise) and node.exc and _UNWRITTEN in ast.unparse(node.exc)
        ]
        findings += [module.finding(function, f"{function.name} has no body") for function in _bodiless(module)]
    return findings


def _bodiless(module: Module) -> Iterator[_Function]:
    """Functions that are only `...`, but for those of a Protocol and the overloads of another one."""
    spoken = {
        id(member)
        for node in ast.walk(module.syntax)
        if isinstance(node, ast.ClassDef) and any("Protocol" in ast.unparse(parent) for parent in node.bases)
        for member in node.body
    }
    for function in _functions(module):
        overloaded = any("overload" in ast.unparse(mark) for mark in function.decorator_list)
        last = function.body[-1]
        empty = isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...
        if empty and not overloaded and id(function) not in spoken:
            yield function


def public_names(tree: Tree) -> list[Finding]:
    """`__all__` is true: it stands in every product module with public classes or functions and names them all."""
    findings = []
    for module in tree.product:
        if module.stem == "__main__":
            continue
        declared = _declared(module)
        defined = {
            node.name
            for node in module.syntax.body
            if isinstance(node, _Function | ast.ClassDef) and not node.name.startswith("_")
        }
        if declared is None:
            if defined:
                findings.append(module.finding(0, f"no __all__, but {', '.join(sorted(defined))} look public"))
            continue
        bound = _bound_names(module)
        findings += [module.finding(0, f"__all__ names {name}, which is not here") for name in declared - bound]
        findings += [module.finding(0, f"{name} is public but not in __all__") for name in defined - declared]
    return sorted(findings)


def _declared(module: Module) -> set[str] | None:
    """What `__all__` names, or None if the module has none."""
    for node in module.syntax.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return set(ast.literal_eval(node.value)) if isinstance(node, ast.Assign) else None
    return None


def _bound_names(module: Module) -> set[str]:
    """The names that importing the module binds at its top level, and those that it makes on demand."""
    bound: set[str] = set()
    for node in ast.walk(module.syntax):
        if isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ClassDef | _Function):
            bound.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.add(node.id)
    if any(isinstance(node, _Function) and node.name == "__getattr__" for node in module.syntax.body):
        # A module with __getattr__ imports lazily; its string constants are the names that it can make.
        bound |= {n.value for n in ast.walk(module.syntax) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return bound
