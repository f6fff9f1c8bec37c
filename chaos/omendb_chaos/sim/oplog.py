"""What a simulated disk was asked to do, in order, and what of it a power cut leaves behind.

A disk is files and folders by number ("nodes"; the root is 0). Contents of a file last once it was synced; a name
lasts once its folder was, strictly: syncing a file does not save its name, and a rename across folders needs both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from omendb_chaos.sim.content import EMPTY, Content

ROOT = 0
SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes written to a file. ``rot`` marks damage to the medium, which is durable at once."""

    node: int
    offset: int
    data: bytes
    rot: bool = False

    def apply(self, image: Image) -> None:
        """Do it to ``image``."""
        image.files[self.node] = image.files.get(self.node, EMPTY).write(self.offset, self.data)


@dataclass(frozen=True, slots=True)
class Resize:
    """A file cut or extended with zeros."""

    node: int
    length: int
    rot: bool = False

    def apply(self, image: Image) -> None:
        """Do it to ``image``."""
        image.files[self.node] = image.files.get(self.node, EMPTY).resize(self.length)


@dataclass(frozen=True, slots=True)
class Link:
    """A new file or folder got a name."""

    folder: int
    name: str
    node: int
    is_folder: bool

    def apply(self, image: Image) -> None:
        """Do it to ``image``."""
        image.entries(self.folder)[self.name] = self.node


@dataclass(frozen=True, slots=True)
class Unlink:
    """A name went away."""

    folder: int
    name: str

    def apply(self, image: Image) -> None:
        """Do it to ``image``."""
        image.entries(self.folder).pop(self.name, None)


@dataclass(frozen=True, slots=True)
class Move:
    """A name became another, atomically, perhaps replacing something."""

    src_folder: int
    src: str
    folder: int
    name: str
    node: int

    def apply(self, image: Image) -> None:
        """Do it to ``image``."""
        source = image.entries(self.src_folder)
        # The old name may have been given anew, and durably, before the new folder was synced: that one stays.
        if source.get(self.src) == self.node:
            del source[self.src]
        image.entries(self.folder)[self.name] = self.node


@dataclass(frozen=True, slots=True)
class SyncFile:
    """A file was fsynced; when that failed, its unsynced bytes are gone and count as clean, as on ext4."""

    node: int
    ok: bool = True


@dataclass(frozen=True, slots=True)
class SyncFolder:
    """A folder was fsynced, or that failed."""

    folder: int
    ok: bool = True


FileOp: TypeAlias = Write | Resize
NameOp: TypeAlias = Link | Unlink | Move
PendingOp: TypeAlias = FileOp | NameOp
Op: TypeAlias = PendingOp | SyncFile | SyncFolder


@dataclass(slots=True)
class Image:
    """A whole disk: contents by node, and folders' entries by node (copied when first changed)."""

    files: dict[int, Content] = field(default_factory=dict)
    folders: dict[int, dict[str, int]] = field(default_factory=lambda: {ROOT: {}})
    _own: set[int] = field(default_factory=set)

    def entries(self, folder: int) -> dict[str, int]:
        """A folder's entries, safe to change."""
        if folder not in self._own:
            self.folders[folder] = dict(self.folders.get(folder, {}))
            self._own.add(folder)
        return self.folders[folder]

    def copy(self) -> Image:
        """An independent image that shares all contents."""
        # Neither may change entries in place any more, so both forget what they own.
        self._own.clear()
        return Image(dict(self.files), dict(self.folders))

    def walk(self) -> Iterator[tuple[str, int]]:
        """(path, node) of everything that can be reached, folders before their entries, in order of name."""
        pending = [("", ROOT)]
        while pending:
            path, node = pending.pop()
            yield path, node
            if node in self.folders:
                entries = sorted(self.folders[node].items(), reverse=True)
                pending.extend((f"{path}/{name}", child) for name, child in entries)

    def reachable(self) -> Image:
        """The image without what has no name."""
        nodes = [node for _, node in self.walk()]
        return Image(
            {node: self.files[node] for node in nodes if node in self.files},
            {node: self.folders[node] for node in nodes if node in self.folders},
        )

    def key(self) -> int:
        """Equal for images that look the same."""
        return hash(tuple((path, node in self.folders, self.files.get(node)) for path, node in self.walk()))


@dataclass(slots=True)
class _Waiting:
    op: PendingOp
    folders: set[int]


@dataclass(frozen=True, slots=True)
class Moment:
    """The disk after ``at`` operations: what is durable, and what is not yet (oldest first)."""

    at: int
    durable: Image
    pending: tuple[PendingOp, ...]
    # How many syncs came before: between two of them nothing more becomes durable.
    syncs: int
    # Whether a sync, or the end, comes next.
    last_before_sync: bool

    def survive(self, ops: Sequence[PendingOp]) -> Image:
        """What a power cut leaves when of the pending operations just these got through, in this order."""
        image = self.durable.copy()
        for op in ops:
            op.apply(image)
        return image.reachable()


def moments(base: Image, log: Sequence[Op]) -> Iterator[Moment]:
    """The disk before the first operation and after each."""
    durable = base.copy()
    waiting: list[_Waiting] = []
    syncs = 0
    for at in range(len(log) + 1):
        if at:
            op = log[at - 1]
            waiting = _step(durable, waiting, op)
            syncs += isinstance(op, SyncFile | SyncFolder)
        ends = at == len(log) or isinstance(log[at], SyncFile | SyncFolder)
        yield Moment(at, durable.copy(), tuple(item.op for item in waiting), syncs, ends)


def last_moment(base: Image, log: Sequence[Op]) -> Moment:
    """The disk after the last operation."""
    durable = base.copy()
    waiting: list[_Waiting] = []
    for op in log:
        waiting = _step(durable, waiting, op)
    return Moment(len(log), durable, tuple(item.op for item in waiting), 0, True)


def _step(durable: Image, waiting: list[_Waiting], op: Op) -> list[_Waiting]:
    match op:
        case Write(rot=True) | Resize(rot=True):
            op.apply(durable)
        case SyncFile():
            return _sync_file(durable, waiting, op)
        case SyncFolder():
            return _sync_folder(durable, waiting, op)
        case Link():
            # The node exists, empty, whether or not its name will last.
            if op.is_folder:
                durable.folders[op.node] = {}
            else:
                durable.files[op.node] = EMPTY
            return [*waiting, _Waiting(op, {op.folder})]
        case Unlink():
            return [*waiting, _Waiting(op, {op.folder})]
        case Move():
            return [*waiting, _Waiting(op, {op.folder, op.src_folder})]
        case Write() | Resize():
            return [*waiting, _Waiting(op, set())]
    return waiting


def _sync_file(durable: Image, waiting: list[_Waiting], sync: SyncFile) -> list[_Waiting]:
    left: list[_Waiting] = []
    for item in waiting:
        if not isinstance(item.op, Write | Resize) or item.op.node != sync.node:
            left.append(item)
        elif sync.ok:
            item.op.apply(durable)
    return left


def _sync_folder(durable: Image, waiting: list[_Waiting], sync: SyncFolder) -> list[_Waiting]:
    left: list[_Waiting] = []
    for item in waiting:
        if sync.folder not in item.folders:
            left.append(item)
        elif sync.ok:
            item.folders.discard(sync.folder)
            if item.folders:
                left.append(item)
            else:
                item.op.apply(durable)
    return left


__all__ = [
    "ROOT",
    "SECTOR_BYTES",
    "FileOp",
    "Image",
    "Link",
    "Moment",
    "Move",
    "NameOp",
    "Op",
    "PendingOp",
    "Resize",
    "SyncFile",
    "SyncFolder",
    "Unlink",
    "Write",
    "last_moment",
    "moments",
]
