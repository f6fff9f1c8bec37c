"""The house rules for what a module may touch: time, dice and disk come through ports, errors are named."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.tidy.source_tree import Finding, Module, Tree

__all__ = ["ALLOWED", "Permission", "ambient_world", "blind_except", "stale_permissions"]

PORTED_ROOTS = ("common/omendb_common/", "datanode/omendb_engine/")

TIME_AND_DICE = frozenset(
    {
        "datetime.date.today",
        "datetime.datetime.now",
        "datetime.datetime.today",
        "datetime.datetime.utcnow",
        "os.getrandom",
        "os.urandom",
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
        "time.perf_counter_ns",
        "time.sleep",
        "time.time",
        "time.time_ns",
        "uuid.uuid1",
        "uuid.uuid4",
    }
)
# Whatever these modules offer is dice.
DICE_MODULES = ("random.", "secrets.", "numpy.random.")
# Dice that are fair play when they are given a seed.
SEEDED = frozenset({"numpy.random.default_rng", "numpy.random.Generator", "random.Random"})
_OS_CALLS = (
    *("fdatasync", "fsync", "ftruncate", "link", "listdir", "makedirs", "mkdir", "open", "pread", "preadv", "pwrite"),
    *("pwritev", "read", "remove", "removedirs", "rename", "replace", "rmdir", "scandir", "statvfs", "symlink"),
    *("truncate", "unlink", "write"),
)
_OTHER_CALLS = (
    "mmap.mmap",
    "numpy.load",
    "numpy.memmap",
    "numpy.save",
    "shutil.copy",
    "shutil.copytree",
    "shutil.rmtree",
)
DISK = frozenset({"open", *_OTHER_CALLS, *(f"os.{name}" for name in _OS_CALLS)})


@dataclass(frozen=True, slots=True)
class Permission:
    """Leave for one module to use the named calls, or any (None), and why."""

    reason: str
    names: frozenset[str] | None = None

    def covers(self, name: str) -> bool:
        """Whether the call is one of those."""
        return self.names is None or name in self.names


# Who may touch the world, and why. An entry that nobody needs any more is a finding of its own.
ALLOWED: Mapping[str, Permission] = {
    "common/omendb_common/clock.py": Permission("the clock port's real clock"),
    "common/omendb_common/disk.py": Permission("the disk port's real disk"),
    "common/omendb_common/config.py": Permission("reads the settings before there is a disk", frozenset({"open"})),
    "common/omendb_common/wire/coordinator_client.py": Permission(
        "the default of the port `new_id`: ids of requests", frozenset({"uuid.uuid4"})
    ),
    "datanode/omendb_engine/folder.py": Permission("the default of the port `new_uuid`", frozenset({"uuid.uuid4"})),
    "datanode/omendb_engine/lock.py": Permission(
        "the writer lock is the operating system's, between processes, which a simulated disk has not",
        frozenset({"os.ftruncate", "os.open", "os.pread", "os.pwrite"}),
    ),
}


def ambient_world(tree: Tree, allowed: Mapping[str, Permission] = ALLOWED) -> list[Finding]:
    """Engine and common take time, dice and disk from ports, so that a simulation can hand in its own."""
    return [
        module.finding(line, f"{name} reaches around the ports: take a Clock, a seed or a Disk")
        for module in tree.modules
        if module.path.startswith(PORTED_ROOTS)
        for line, name in _reaches(module)
        if module.path not in allowed or not allowed[module.path].covers(name)
    ]


def stale_permissions(tree: Tree, allowed: Mapping[str, Permission] = ALLOWED) -> list[Finding]:
    """Every permission to touch the world is one that its module still uses, call by call."""
    used = {module.path: {name for _, name in _reaches(module)} for module in tree.modules if module.path in allowed}
    findings = []
    for path, permission in sorted(allowed.items()):
        using = used.get(path, set())
        unused = sorted((permission.names or frozenset()) - using)
        findings += [Finding(path, 0, f"is allowed to call {name} but does not") for name in unused]
        if permission.names is None and not using:
            findings.append(Finding(path, 0, "is allowed to touch the world but does not"))
    return findings


def _reaches(module: Module) -> Iterator[tuple[int, str]]:
    aliases = _aliases(module)
    inner = {id(node.value) for node in ast.walk(module.syntax) if isinstance(node, ast.Attribute)}
    seeded = {
        id(node.func) for node in ast.walk(module.syntax) if isinstance(node, ast.Call) and (node.args or node.keywords)
    }
    for node in ast.walk(module.syntax):
        if id(node) in inner or not isinstance(node, ast.Attribute | ast.Name):
            continue
        name = _full_name(node, aliases)
        if name in SEEDED and (id(node) in seeded or name == "numpy.random.Generator"):
            continue
        if name in TIME_AND_DICE or name in DISK or name.startswith(DICE_MODULES):
            yield node.lineno, name


def _aliases(module: Module) -> dict[str, str]:
    """What each imported name stands for, wherever in the module it is imported."""
    aliases: dict[str, str] = {}
    for node in ast.walk(module.syntax):
        if isinstance(node, ast.Import):
            for item in node.names:
                aliases[item.asname or item.name.split(".")[0]] = item.name if item.asname else item.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for item in node.names:
                aliases[item.asname or item.name] = f"{node.module}.{item.name}"
    return aliases


def _full_name(node: ast.expr, aliases: Mapping[str, str]) -> str:
    """The dotted name of an expression, with its imports resolved; empty when it is not a name."""
    if isinstance(node, ast.Name):
        # A name that is not imported is a local one, but for the one builtin that opens files.
        return aliases.get(node.id, "open" if node.id == "open" and isinstance(node.ctx, ast.Load) else "")
    if isinstance(node, ast.Attribute):
        before = _full_name(node.value, aliases)
        return f"{before}.{node.attr}" if before else ""
    return ""


def blind_except(tree: Tree) -> list[Finding]:
    """No product code catches everything, unless it raises again what it caught."""
    return [
        module.finding(node, "catches everything: name the error that can be mended here")
        for module in tree.product
        for node in ast.walk(module.syntax)
        if isinstance(node, ast.ExceptHandler) and _catches_all(node) and not _raises_again(node)
    ]


def _catches_all(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(name, ast.Name) and name.id in {"Exception", "BaseException"} for name in caught)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    if not isinstance(last, ast.Raise):
        return False
    caught_by_name = isinstance(last.exc, ast.Name) and last.exc.id == handler.name
    return last.exc is None or caught_by_name or last.cause is not None
