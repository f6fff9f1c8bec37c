"""Who a folder belongs to: which cluster, which member of it, and which life of that member's disk."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from omendb_common.checksum import crc32c
from omendb_common.disk import Disk, replace_file
from omendb_common.errors import CorruptionError, FormatVersionError, InvalidArgumentError

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Written once, when the folder is made. ``birth`` differs after the disk was lost, whatever the name."""

    cluster_id: str
    node_id: str
    members: tuple[str, ...]
    birth: str

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
    body = json.dumps({"format": _FORMAT, **asdict(identity)}, sort_keys=True)
    replace_file(disk, path, [json.dumps({"crc32c": crc32c(body.encode()), "identity": body}).encode()])


def read_identity(disk: Disk, path: str) -> Identity:
    """The identity.

    Raises:
        CorruptionError: damaged.
        FormatVersionError: a newer release wrote it.
        FileNotFoundError: there is none.
    """
    try:
        outer = json.loads(disk.read(path))
        body = outer["identity"]
        if crc32c(body.encode()) != outer["crc32c"]:
            raise CorruptionError("the checksum does not match", path=path)
        fields = json.loads(body)
        if fields.pop("format") > _FORMAT:
            raise FormatVersionError("the format is newer", field=path, bound=f"at most {_FORMAT}")
        return Identity(**{**fields, "members": tuple(fields["members"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(f"not an identity: {error}", path=path) from error


__all__ = ["Identity", "cluster_id_of", "read_identity", "write_identity"]
