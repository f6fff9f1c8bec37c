"""The house rule for background tasks: each has an owner that ends it, and somebody hears of its fault."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from tests.tidy.source_tree import Finding, Tree

__all__ = ["OWNED", "owned_tasks"]

STARTS = frozenset({"create_task", "ensure_future"})
# The name of a task group: its tasks are ended and awaited by the block that they begin in.
GROUPS = frozenset({"group"})
# What shakes the product may drop what it likes.
ROOTS = ("common/", "coordinator/", "datanode/", "router/", "sdk/", "server/")

# Who begins tasks: who ends them, and what becomes of an exception that nobody expected.
OWNED: Mapping[str, str] = {
    "common/omendb_common/wire/coalesce.py": "the coalescer, in its set; a fault reaches those who wait for the batch",
    "common/omendb_common/wire/coordinator_client.py": "the client, in its set; a channel that does not close is left",
    "common/omendb_common/wire/frame_client.py": "the client; a fault counts as unreachable, and is told to the loop",
    "common/omendb_common/wire/frame_server.py": "the server, in its set; a fault is the caller's internal error",
    "common/omendb_common/wire/unending.py": "whoever made it; a fault is told to the loop, and the work begins anew",
    "coordinator/omendb_coordinator/consensus/group.py": "the group; a fault ends the member",
    "coordinator/omendb_coordinator/consensus/transport.py": "the block that it begins in, which awaits it",
    "coordinator/omendb_coordinator/process.py": "the process, which waits for it; a fault ends the process",
    "datanode/omendb_datanode/hosting.py": "the hosting; the process looks at it, and ends with its fault",
    "datanode/omendb_datanode/replicate/errands.py": "the errands; one that stopped with a fault is begun anew",
    "router/omendb_router/face_serving.py": "the faces, which await it when they stop",
    "router/omendb_router/clock_look.py": "the fan-out; a fault reaches those who wait for the look",
    "router/omendb_router/claiming.py": "the fan-out, which keeps and ends it",
    "router/omendb_router/fanout.py": "the fan-out, in its set; a fault is handed to the caller",
    "router/omendb_router/maps.py": "the fan-out; it asks once, and the next request asks again",
    "router/omendb_router/stamps.py": "the fan-out; it asks once, and the next write asks again",
    "router/omendb_router/workers.py": "the block that it begins in",
    "server/omendb_server/local_metadata.py": "the metadata, in its set; the caller awaits it",
}


def owned_tasks(tree: Tree, owned: Mapping[str, str] = OWNED) -> list[Finding]:
    """Every module that begins tasks outside a task group is listed with who owns them; no other one is."""
    begins: dict[str, int] = {}
    for module in tree.product:
        if not module.path.startswith(ROOTS):
            continue
        for node in ast.walk(module.syntax):
            if isinstance(node, ast.Call) and _starts(node.func):
                begins.setdefault(module.path, node.lineno)
    findings = [
        Finding(path, line, "begins a task: take a task group or Unending, or list here who owns it")
        for path, line in sorted(begins.items())
        if path not in owned
    ]
    known = {module.path for module in tree.product}
    return findings + [
        Finding(path, 0, "is listed with an owner of its tasks, and begins none")
        for path in sorted(owned)
        if path in known and path not in begins
    ]


def _starts(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in STARTS
    if not isinstance(function, ast.Attribute) or function.attr not in STARTS:
        return False
    return not (isinstance(function.value, ast.Name) and function.value.id in GROUPS)
