"""Damage that disks do by themselves: flipped bits, and blocks zeroed, swapped, stale, misdirected or cut off.

Each function changes the medium behind the engine's back and says whether the bytes differ from before; damage that
changes nothing cannot be detected, and need not be.
"""

from __future__ import annotations

from omendb_chaos.sim.content import PAGE_BYTES
from omendb_chaos.sim.disk import SimDisk


def _block(disk: SimDisk, path: str, block: int) -> bytes:
    return disk.peek(path)[block * PAGE_BYTES : (block + 1) * PAGE_BYTES]


def _put(disk: SimDisk, path: str, block: int, data: bytes) -> bool:
    """Overwrite a block without making the file longer."""
    old = _block(disk, path, block)
    data = data[: len(old)]
    if not data or old[: len(data)] == data:
        return False
    disk.damage(path, block * PAGE_BYTES, data)
    return True


def set_byte(disk: SimDisk, path: str, offset: int, value: int) -> bool:
    """One byte becomes ``value``."""
    if disk.peek(path)[offset] == value:
        return False
    disk.damage(path, offset, bytes([value]))
    return True


def flip_bit(disk: SimDisk, path: str, offset: int, bit: int = 0) -> bool:
    """One bit of a byte turns over."""
    return set_byte(disk, path, offset, disk.peek(path)[offset] ^ (1 << bit))


def zero_block(disk: SimDisk, path: str, block: int) -> bool:
    """A block of 4096 bytes reads as zeros."""
    return _put(disk, path, block, bytes(PAGE_BYTES))


def swap_blocks(disk: SimDisk, path: str, block: int, other_path: str, other_block: int) -> bool:
    """Two blocks changed places."""
    mine, other = _block(disk, path, block), _block(disk, other_path, other_block)
    first = _put(disk, path, block, other)
    return _put(disk, other_path, other_block, mine) or first


def stale_block(disk: SimDisk, path: str, block: int) -> bool:
    """The last write of a block was acknowledged and never reached the medium."""
    previous = disk.previous_page(path, block)
    return previous is not None and _put(disk, path, block, previous)


def misdirect(disk: SimDisk, path: str, block: int, other_path: str, other_block: int) -> bool:
    """The last write of a block landed on another one, and its own place kept what it had before."""
    mine, previous = _block(disk, path, block), disk.previous_page(path, block)
    hit = _put(disk, other_path, other_block, mine)
    return _put(disk, path, block, previous if previous is not None else bytes(PAGE_BYTES)) or hit


def truncate_file(disk: SimDisk, path: str, length: int) -> bool:
    """The file ends at ``length``."""
    if length >= disk.size(path):
        return False
    disk.cut(path, length)
    return True


__all__ = ["flip_bit", "misdirect", "set_byte", "stale_block", "swap_blocks", "truncate_file", "zero_block"]
