"""Who a folder belongs to: which cluster, which member of it, and which life of that member's disk."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from omendb_common.checksum import crc32c
from omendb_common.disk import Disk, replace_file
from omendb_common.errors import CorruptionError, FormatVersionError, InvalidArgumentError

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Written once, when the folder is made.

    ``birth`` differs after the disk was lost, whatever the name. ``origin`` says how the folder came to be: with the
    group, or in the place of one that was lost.
    """

    cluster_id: str
    node_id: str
    members: tuple[str, ...]
    birth: str
    origin: Literal["bootstrap", "rejoin"] = "bootstrap"

    def check(self, node_id: str, members: tuple[str, ...], cluster_id: str | None, path: str) -> None:
        """Refuse to run under another name or among other members than those the folder was made for."""
        for name, mine, given in (
            ("node_id", self.node_id, node_id),
            ("members", ", ".join(self.members), ", ".join(members)),
            ("cluster_id", self.cluster_id, cluster_id or self.cluster_id),
        ):
            if mine != given:
                raise InvalidArgumentError(f"{name} is {mine} there, not {given}", field=path)


def cluster_id_of(addresses: Mapping[str, tuple[str, int]]) -> str:
    """The name of a cluster that nobody named: the same on every member that is started with the same list."""
    text = ",".join(f"{node}={host}:{port}" for node, (host, port) in sorted(addresses.items()))
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"omendb:{text}"))


def write_identity(disk: Disk, path: str, identity: Identity) -> None:
    """Make it durable; an OSError is final."""
    _write(disk, path, asdict(identity))


def read_identity(disk: Disk, path: str) -> Identity:
    """The identity.

    Raises:
        CorruptionError: damaged.
        FormatVersionError: a newer release wrote it.
        FileNotFoundError: there is none.
    """
    fields = _read(disk, path)
    try:
        return Identity(**{**fields, "members": tuple(fields["members"])})
    except (KeyError, TypeError) as error:
        raise CorruptionError(f"not an identity: {error}", path=path) from error


def write_births(disk: Disk, path: str, births: Mapping[str, str]) -> None:
    """Remember which life of each other member's disk this one has met; an OSError is final."""
    _write(disk, path, dict(births))


def read_births(disk: Disk, path: str) -> dict[str, str]:
    """Which life of each other member's disk this one has met; raises as :func:`read_identity`."""
    return {str(node): str(birth) for node, birth in _read(disk, path).items()}


def _write(disk: Disk, path: str, fields: dict[str, Any]) -> None:
    body = json.dumps({"format": _FORMAT, "fields": fields}, sort_keys=True)
    replace_file(disk, path, [json.dumps({"crc32c": crc32c(body.encode()), "body": body}).encode()])


def _read(disk: Disk, path: str) -> dict[str, Any]:
    try:
        outer = json.loads(disk.read(path))
        body = outer["body"]
        if crc32c(body.encode()) != outer["crc32c"]:
            raise CorruptionError("the checksum does not match", path=path)
        inner = json.loads(body)
        if inner["format"] > _FORMAT:
            raise FormatVersionError("the format is newer", field=path, bound=f"at most {_FORMAT}")
        fields: dict[str, Any] = inner["fields"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(f"not what was written: {error}", path=path) from error
    return fields


__all__ = ["Identity", "cluster_id_of", "read_births", "read_identity", "write_births", "write_identity"]
