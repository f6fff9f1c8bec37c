"""Every house rule finds the fault that it is there for: small trees, each with one fault planted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.tidy import rules_code, rules_house, rules_ports, rules_tasks
from tests.tidy.rules_house import LOCAL_STRINGS
from tests.tidy.source_tree import Finding, Rule, Tree
from tests.tidy.test_rules_hold import RULES

ENGINE = "datanode/omendb_engine/planted.py"
LOCK = "datanode/omendb_engine/lock.py"
NOTE = "TO" + "DO"
README = "# Part\n\n## Invariants\n\n1. It holds.\n"
PROJECT = '[project]\ndependencies = ["numpy{}"]\n'
SETTINGS = "class Storage:\n    sync_ms: int = setting(100, 'why')\n"


@dataclass(frozen=True, slots=True)
class Planted:
    """A rule, a file with a fault, and the same file without it.

    What is `beside` stands in both trees. The finding names the file, unless `found_in` says another;
    the file keeps its name when it is mended, unless `mended_path` says another.
    """

    rule: Rule
    fault: str
    mended: str
    path: str = ENGINE
    beside: tuple[tuple[str, str], ...] = ()
    found_in: str = ""
    mended_path: str = ""


def long_function(lines: int, docstring: str = "") -> str:
    return "def planted() -> None:\n" + docstring + "    x = 1\n" * (lines - 1)


def others(path: str) -> dict[str, str]:
    """Every module but one that may touch the world, doing all that it may."""
    calls = {p: allowed.names or {"open"} for p, allowed in rules_ports.ALLOWED.items() if p != path}
    return {p: "import os, uuid\n" + "".join(f"{name}(1)\n" for name in sorted(names)) for p, names in calls.items()}


CASES = (
    Planted(rules_code.opening_sentences, "x = 1\n", '"""What it is."""\n'),
    Planted(rules_code.opening_sentences, '"""what it is, and\nmore."""\n', '"""What it is:\nthis and that."""\n'),
    Planted(rules_code.files_too_long, "x = 1\n" * 701, "x = 1\n" * 700),
    Planted(
        rules_code.most_files_short,
        "x = 1\n" * 401,
        "x = 1\n" * 400,
        beside=tuple((f"common/omendb_common/m{i}.py", "") for i in range(8)),
    ),
    Planted(rules_code.functions_too_long, long_function(76), long_function(75)),
    Planted(rules_code.functions_too_long, long_function(76), long_function(75, '    """One\n\n    two.\n    """\n')),
    Planted(
        rules_code.drawer_names,
        "",
        "",
        path="datanode/omendb_engine/utils.py",
        mended_path="datanode/omendb_engine/seals.py",
    ),
    Planted(
        rules_code.drawer_names,
        "",
        "",
        path="datanode/omendb_engine/helpers/__init__.py",
        mended_path="datanode/omendb_engine/seals/__init__.py",
    ),
    Planted(rules_code.unfinished_work, f"x = 1  # {NOTE}: more\n", "x = 1  # a todo list is a word\n"),
    Planted(rules_code.unfinished_work, f"{NOTE}\n", "Done\n", path="docs/page.md"),
    Planted(rules_code.unfinished_work, "def f() -> None:\n    raise NotImplementedError\n", "def f() -> None: pass\n"),
    Planted(
        rules_code.unfinished_work,
        "class A:\n    def f(self) -> int: ...\n",
        "class A(Protocol):\n    def f(self) -> int: ...\n",
    ),
    Planted(rules_code.public_names, "class A: pass\n", 'class A: pass\n__all__ = ["A"]\n'),
    Planted(rules_code.public_names, '__all__ = ["A"]\n', 'from b import A\n__all__ = ["A"]\n'),
    Planted(rules_code.public_names, "__all__ = []\ndef a(): pass\n", "__all__ = []\ndef _a(): pass\n"),
    Planted(rules_ports.ambient_world, "import time\nt = time.time()\n", "t = clock.wall_ms()\n"),
    Planted(rules_ports.ambient_world, "from time import monotonic as m\nt = m()\n", "t = clock.mono_s()\n"),
    Planted(rules_ports.ambient_world, "import time\ncall = time.sleep\n", "call = clock.sleep\n"),
    Planted(rules_ports.ambient_world, "import uuid\nx = uuid.uuid4()\n", "import uuid\nx = uuid.UUID(int=1)\n"),
    Planted(rules_ports.ambient_world, "import os\nx = os.urandom(8)\n", "import os\nx = os.getpid()\n"),
    Planted(rules_ports.ambient_world, "import random\nx = random.random()\n", "import random\nx = random.Random(1)\n"),
    Planted(
        rules_ports.ambient_world,
        "import numpy as np\nx = np.random.default_rng()\n",
        "import numpy as np\nx = np.random.default_rng(7)\n",
    ),
    Planted(
        rules_ports.ambient_world,
        "from datetime import datetime, UTC\nx = datetime.now(UTC)\n",
        "from datetime import datetime, UTC\nx = datetime(2000, 1, 1, tzinfo=UTC)\n",
    ),
    Planted(rules_ports.ambient_world, "f = open('a')\n", "f = disk.open('a', 'r')\n"),
    Planted(rules_ports.ambient_world, "import os\nos.replace('a', 'b')\n", "disk.rename('a', 'b')\n"),
    Planted(rules_ports.ambient_world, "import os\nos.fsync(1)\n", "import os\nos.pread(1, 2, 3)\n", path=LOCK),
    Planted(
        rules_ports.stale_permissions,
        "x = 1\n",
        "import time\nx = time.time()\n",
        path="common/omendb_common/clock.py",
        beside=tuple(others("common/omendb_common/clock.py").items()),
    ),
    Planted(
        rules_ports.stale_permissions,
        "import os\nos.open(1)\nos.pread(1)\nos.pwrite(1)\n",
        "import os\nos.open(1)\nos.pread(1)\nos.pwrite(1)\nos.ftruncate(1)\n",
        path=LOCK,
        beside=tuple(others(LOCK).items()),
    ),
    Planted(
        rules_ports.blind_except,
        "try:\n    f()\nexcept Exception:\n    pass\n",
        "try:\n    f()\nexcept OSError:\n    pass\n",
    ),
    Planted(
        rules_ports.blind_except,
        "try:\n    f()\nexcept:\n    log()\n",
        "try:\n    f()\nexcept BaseException:\n    log()\n    raise\n",
    ),
    Planted(
        rules_ports.blind_except,
        "try:\n    f()\nexcept (OSError, Exception) as error:\n    raise Other\n",
        "try:\n    f()\nexcept (OSError, ValueError) as error:\n    raise Other\n",
    ),
    Planted(
        rules_tasks.owned_tasks,
        "t = asyncio.create_task(watch())\n",
        "async with TaskGroup() as group:\n    group.create_task(watch())\n",
    ),
    Planted(
        rules_tasks.owned_tasks,
        "x = 1\n",
        "t = loop.create_task(work())\n",
        path="common/omendb_common/wire/unending.py",
    ),
    *(
        Planted(rules_house.nothing_local, f"see {text}shared\n", "see ./shared\n", path="docs/page.md")
        for text in LOCAL_STRINGS
    ),
    Planted(rules_house.nothing_local, f"x = '{LOCAL_STRINGS[0]}a'\n", f"x = 'benchmarks{LOCAL_STRINGS[0]}a'\n"),
    Planted(rules_house.files_are_small, "x" * 10_000_001, "x" * 10_000_000, path="data/big.npy"),
    Planted(
        rules_house.components_explain_themselves,
        "# Part\n",
        README,
        path="datanode/README.md",
        beside=((ENGINE, ""),),
    ),
    Planted(
        rules_house.dependencies_are_explained,
        PROJECT.format(">=1"),
        PROJECT.format(">=1,<2"),
        path="pyproject.toml",
        beside=(("docs/dependencies.md", "`numpy` counts\n"),),
    ),
    Planted(
        rules_house.dependencies_are_explained,
        "numpy counts\n",
        "`numpy` counts\n",
        path="docs/dependencies.md",
        beside=(("pyproject.toml", PROJECT.format(">=1,<2")),),
    ),
    Planted(rules_house.changelog_is_open, "## 0.1.0\n", "## Unreleased\n\n## 0.1.0\n", path="CHANGELOG.md"),
    Planted(
        rules_house.settings_are_documented,
        "# storage:\n",
        "# storage:\n#   sync_ms: 100\n",
        path="docs/omendb.example.yaml",
        beside=((rules_house.SETTINGS_MODULE, SETTINGS),),
    ),
    Planted(
        rules_house.settings_are_used,
        "x = 1\n",
        "x = settings.storage.sync_ms\n",
        found_in=rules_house.SETTINGS_MODULE,
        beside=((rules_house.SETTINGS_MODULE, SETTINGS),),
    ),
)


def findings(rule: Rule, root: Path, files: dict[str, str]) -> list[Finding]:
    for path, text in files.items():
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return rule(Tree.of(root))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.rule.__name__)
def test_the_rule_finds_the_fault_and_only_the_fault(case: Planted, tmp_path: Path) -> None:
    found = findings(case.rule, tmp_path / "faulty", {**dict(case.beside), case.path: case.fault})
    assert [finding.path for finding in found] == [case.found_in or case.path]
    mended = case.mended_path or case.path
    assert not findings(case.rule, tmp_path / "mended", {**dict(case.beside), mended: case.mended})


def test_every_rule_has_a_planted_fault() -> None:
    assert {case.rule for case in CASES} == set(RULES)
