"""Malformed requests by the thousand to a served model, and what becomes of the good ones among them.

    mlflow models serve -m models:/cardium-ecg4@champion --env-manager local -p 5001 &
    python benchmarks/serving_fuzz.py sheet.jpg [--port 5001] [--requests 10000] [--clients 2]

The requests are those of tests/malformed_requests.py, drawn by hypothesis; a third of the files that they damage is the good
one, whatever its kind: a sheet, a volume, a zip of a patient. A client of its own sends the good file all the time: first
alone, then among them. Prints statuses, faults (5xx, no answer, a leak), the slowest, and the good file's times
and whether its answer was always the same.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


class GoodClient:
    """Sends the same good request again and again. seconds: how long each took; texts: what was answered."""

    def __init__(self, requests: Any, port: int, sent: Any) -> None:
        self._requests, self._port, self._sent = requests, port, sent
        self.seconds: list[float] = []
        self.texts: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            answer = self._requests.send(self._port, self._sent)
            self.seconds.append(answer.seconds)
            self.texts.add(answer.text)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def __str__(self) -> str:
        ordered = sorted(self.seconds)
        shares = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.95, 1.0)]
        return f"{len(ordered)} requests, p50 {shares[0]:.3f} s, p95 {shares[1]:.3f} s, max {shares[2]:.3f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--port", type=int, default=5001)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=2)
    asked = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    requests, hypothesis = importlib.import_module("malformed_requests"), importlib.import_module("hypothesis")

    requests.FILES += [asked.file.read_bytes()] * (len(requests.FILES) // 2)
    good = requests.Sent(requests.table(asked.file.read_bytes()))
    alone = GoodClient(requests, asked.port, good)
    time.sleep(15)
    alone.stop()
    among = GoodClient(requests, asked.port, good)
    statuses: Counter[int] = Counter()
    faults: Counter[str] = Counter()
    seconds: list[float] = []
    strategies = hypothesis.strategies.lists(requests.malformed(), min_size=asked.clients, max_size=asked.clients)

    with ThreadPoolExecutor(asked.clients) as clients:

        @hypothesis.settings(
            max_examples=asked.requests // asked.clients,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(strategies)
        def attack(drawn: list[Any]) -> None:
            for answer in clients.map(lambda sent: requests.send(asked.port, sent), drawn):
                statuses[answer.status] += 1
                seconds.append(answer.seconds)
                if fault := answer.fault():
                    faults[fault] += 1

        attack()
    among.stop()
    print("statuses:", dict(sorted(statuses.items())))
    print("faults:", dict(faults) or "none")
    print(f"malformed: p50 {statistics.median(seconds):.3f} s, slowest", [round(one, 2) for one in sorted(seconds)[-5:]])
    print("good alone:", alone)
    print("good among them:", among)
    print("all good answers alike:", len(alone.texts | among.texts) == 1)


if __name__ == "__main__":
    main()
