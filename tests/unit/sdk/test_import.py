"""``import omendb`` is quick and pulls in nothing an embedded program does not need."""

from __future__ import annotations

import subprocess
import sys

import omendb

SERVERS = "grpc boto3 botocore fastapi starlette uvicorn aiohttp kubernetes requests httpx flask"
HEAVY = "pandas polars faiss typer rich yaml pyarrow.parquet pyarrow.dataset"

_PROGRAM = """
import sys, time
started = time.perf_counter()
import omendb
took = time.perf_counter() - started
{then}
loaded = set(sys.modules)
print(took, *[name for name in {names!r}.split() if name in loaded])
"""


def _loaded(then: str, names: str) -> list[str]:
    program = _PROGRAM.format(then=then, names=names)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    took, *loaded = done.stdout.split()
    print(f"import omendb: {float(took) * 1e3:.0f} ms")
    return loaded


def test_import_is_light() -> None:
    assert _loaded("", f"{SERVERS} {HEAVY}") == []


def test_the_public_names_bring_no_server_package() -> None:
    assert (
        _loaded("for name in omendb.__all__: getattr(omendb, name)", f"{SERVERS} pandas polars typer rich yaml") == []
    )


def test_all_is_sorted_and_every_name_is_there() -> None:
    constants = sorted(name for name in omendb.__all__ if name.isupper())
    assert sorted(omendb.__all__, key=lambda n: (n not in constants, n)) == omendb.__all__
    assert all(getattr(omendb, name) is not None for name in omendb.__all__)
    assert set(omendb.__all__) <= set(dir(omendb))
    assert not hasattr(omendb, "no_such_name")
