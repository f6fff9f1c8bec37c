"""Run a benchmark: `python -m benchmarks compare | servers | ingest | search | …`."""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

COMMANDS = {
    "compare": "OmenDB beside its peers",
    "servers": "OmenDB as a server and as a fleet, beside other servers",
    "ingest": "durable ingest against a bare append loop, and how even it is",
    "search": "what OmenDB adds to the bare index call",
    "filters": "recall and latency under the filters of the WordNet set",
    "indexes": "every kind of index over every code: bytes, recall, latency, rate, build",
    "selectivity": "recall and latency of filters, from all rows to a hundred-thousandth",
    "footprint": "memory, disk and reopening",
    "transport": "what a call between a router and a data node costs",
    "fleet-ingest": "bulk ingest through a real local fleet, and where its processor time goes",
    "levels": "what a search through a fleet costs at each level of consistency, with and without writes",
    "fleet": "what a search through a fleet costs, on each face",
    "catch-up": "how soon a data node that was killed holds what the others hold, and what that takes",
    "cluster-work": "what ingest and searches keep of their rates while replicas are mended, and while they move",
}


def main() -> None:
    """Parse the command line and run one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in COMMANDS.items():
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        command = commands.add_parser(
            name, help=told, description=module.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    arguments = parser.parse_args()
    # An ended benchmark must end its workers and remove what it wrote, as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    arguments.run(arguments)


if __name__ == "__main__":
    main()
