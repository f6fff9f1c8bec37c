"""Start Milvus in one process out of its package: `python -m benchmarks.served.launch_milvus FOLDER PORT`.

The package's own command keeps its interpreter beside the server and unpacks the server into every data folder. Here
it is unpacked once into the environment, and this process becomes the server.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from milvus import MilvusServerConfig, _initialize_data_files

ROLES = ("rootCoord", "proxy", "queryCoord", "queryNode", "indexNode", "dataCoord", "dataNode")
METRICS_PORT_FIRST = 9091


def main() -> None:
    """Write the configuration into the folder and become the server."""
    folder, port = Path(sys.argv[1]).resolve(), int(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    config = MilvusServerConfig(data_dir=str(folder), proxy_port=port)
    # Else its parts call each other on the machine's first outside address.
    config.extra_configs.update({f"{role}.ip": "127.0.0.1" for role in ROLES})
    config.resolve()
    metrics_port, held = config.resolve_port(METRICS_PORT_FIRST)
    held.close()
    programs = Path(sys.prefix) / "milvus-server"
    _initialize_data_files(str(programs))
    told = {
        "DEPLOY_MODE": "STANDALONE",
        "METRICS_PORT": str(metrics_port),
        "MILVUS_RUN_DIR": str(folder / "run"),
        "LD_LIBRARY_PATH": str(programs / "bin"),
    }
    os.chdir(folder)
    server = str(programs / "bin" / "milvus")
    os.execve(server, [server, "run", "standalone"], {**os.environ, **told})


if __name__ == "__main__":
    main()
