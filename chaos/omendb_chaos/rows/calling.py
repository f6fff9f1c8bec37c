"""Clients of one router that call until they are told to end, and record every answer."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from omendb.client import Client
from omendb_chaos.fleet.running import START_S
from omendb_chaos.rows.histories import History


class Calling:
    """``clients`` threads that make calls of ``history``, from now on."""

    def __init__(
        self,
        history: History,
        url: str,
        rng: random.Random,
        clients: int,
        *,
        name: str,
        timeout_s: float,
        reads_only: bool = False,
    ) -> None:
        self._name = name
        self._stop = threading.Event()
        self._client = Client(url, timeout=timeout_s)
        self._pool = ThreadPoolExecutor(clients)
        self._working = [
            self._pool.submit(self._work, history, number, rng.getrandbits(64), reads_only) for number in range(clients)
        ]

    def _work(self, history: History, number: int, seed: int, reads_only: bool) -> None:
        rng = random.Random(seed)
        collection = self._client.collection(self._name, timeout=START_S)
        while not self._stop.is_set():
            history.call(f"{self._client.path} {number}", collection, rng, reads_only=reads_only)

    def end(self, after_s: float = 0.0) -> None:
        """Let the last calls end or give up."""
        time.sleep(after_s)
        self._stop.set()
        self._pool.shutdown()
        self._client.close()
        for done in self._working:
            done.result()


__all__ = ["Calling"]
