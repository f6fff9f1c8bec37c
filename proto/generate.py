"""Generate the Python code of the wire contract: `python proto/generate.py [--out FOLDER]`."""

from __future__ import annotations

import argparse
import sys
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
PACKAGE = "omendb_proto/v1"


def generate(out: Path) -> None:
    """Write the modules of every `.proto` file below ``out``, in the folder of its package.

    Raises:
        SystemExit: the compiler refused a file; it has said why on stderr.
    """
    for source in sorted((ROOT / PACKAGE).glob("*.proto")):
        outputs = [f"--python_out={out}", f"--pyi_out={out}"]
        if "\nservice " in source.read_text(encoding="utf-8"):
            outputs.append(f"--grpc_python_out={out}")
        include = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
        if protoc.main(["protoc", *include, *outputs, str(source.relative_to(ROOT))]):
            raise SystemExit(f"protoc refused {source.name}")


def main() -> None:
    """Generate beside the `.proto` files, or below the folder given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT, help="the folder that stands for proto/")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    generate(out)


__all__ = ["generate", "main"]


if __name__ == "__main__":
    sys.exit(main())
