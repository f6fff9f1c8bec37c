"""What goes wrong in a simulated run, and how often."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Profile:
    """Rates are per virtual second over the whole group.

    ``loss``, ``twice`` and ``slow`` are shares of the messages that are lost, arrive twice, or take up to a second.
    ``cuts`` isolate a member, break one link, or one direction of it; ``pauses`` are SIGSTOPs; ``kills`` are kill -9,
    half of them in the middle of a write; ``power_cuts`` take what was not synced, ``all_power_cuts`` of every member
    at once; ``failed_syncs`` end the member and lose what it wrote; ``lost_disks`` take everything.
    ``compact``: snapshots are taken every few entries.
    """

    name: str
    loss: float = 0.03
    twice: float = 0.02
    slow: float = 0.05
    cuts: float = 0.6
    pauses: float = 0.3
    kills: float = 0.0
    power_cuts: float = 0.0
    all_power_cuts: float = 0.0
    failed_syncs: float = 0.0
    lost_disks: float = 0.0
    compact: bool = False
    # The share of voters that are killed as they vote, and start again at once.
    killed_voters: float = 0.0
    # How long a message takes, at most.
    delay_s: float = 0.005


_NET = Profile("net")
_CRASH = replace(_NET, name="crash", kills=1.5)
_PROFILES = (
    _NET,
    _CRASH,
    replace(_CRASH, name="elect", killed_voters=0.4, delay_s=0.15),
    replace(_CRASH, name="compact", compact=True),
    replace(_CRASH, name="rejoin", kills=0.3, cuts=0.3, lost_disks=0.15, compact=True),
    replace(
        _NET,
        name="power",
        kills=0.2,
        cuts=0.3,
        power_cuts=0.4,
        all_power_cuts=0.25,
        failed_syncs=0.15,
        compact=True,
    ),
)
PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in _PROFILES}

__all__ = ["PROFILES", "Profile"]
