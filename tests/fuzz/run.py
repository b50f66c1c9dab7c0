"""Many cases in several processes, of which one that dies or hangs costs no more than its case."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tests.fuzz.case import Family, Inject, Verdict, run_case
from tests.fuzz.families import families

PATIENCE = 120.0  # s until a case counts as endless; wall time, so far above what a case may take
MOST_ADDRESSES = 24 << 30  # bytes, so that a case without bounds ends in its process, not in the machine


@dataclass
class Tally:
    """What became of the cases of a run, by family."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    mishandled: list[Verdict] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        self.outcomes[verdict.family, verdict.outcome] += 1
        self.slowest[verdict.family] = max(verdict.seconds, self.slowest.get(verdict.family, 0.0))
        if verdict.outcome == "mishandled":
            self.mishandled.append(verdict)

    def table(self) -> str:
        """Counts by family, as Markdown."""
        lines = [
            "| family | tried | refused | accepted | mishandled | slowest, CPU s |",
            "|---|---:|---:|---:|---:|---:|",
        ]
        names = list(dict.fromkeys(family for family, _ in self.outcomes))
        kinds = ("refused", "accepted", "mishandled")
        for name in names:
            counts = [self.outcomes[name, kind] for kind in kinds]
            cells = " | ".join(map(str, [sum(counts), *counts]))
            lines.append(f"| {name} | {cells} | {self.slowest[name]:.2f} |")
        sums = [sum(self.outcomes[name, kind] for name in names) for kind in kinds]
        slowest = max(self.slowest.values(), default=0.0)
        lines.append(f"| all | {' | '.join(map(str, [sum(sums), *sums]))} | {slowest:.2f} |")
        return "\n".join(lines)


def again(verdict: Verdict) -> str:
    """The command that repeats a case."""
    return f"python -m tests.fuzz --case {verdict.family}:{verdict.seed}"


@contextmanager
def prepared(folder: Path, chosen: dict[str, Family]) -> Iterator[Callable[[str, int], Verdict]]:
    """A function (family, seed) → verdict, which prepares each family at its first case."""
    injects: dict[str, Inject] = {}

    def run(name: str, seed: int) -> Verdict:
        if name not in injects:
            (folder / name).mkdir(parents=True)
            injects[name] = chosen[name].prepare(folder / name)
        return run_case(chosen[name], injects[name], seed)

    yield run


def run_all(
    cases: Sequence[tuple[str, int]],
    *,
    processes: int,
    find: Callable[[], dict[str, Family]] = families,
    patience: float = PATIENCE,
) -> Iterator[Verdict]:
    """Verdicts of the cases (family, seed), in the order in which they are ready."""
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(cases))
    workers: dict[Connection, _Worker] = {}
    try:
        while waiting or workers:
            while waiting and len(workers) < processes:
                worker = _Worker(context, find)
                workers[worker.connection] = worker
                worker.give(waiting.pop())
            ready = wait(list(workers), timeout=1.0)
            for connection in list(workers):
                worker = workers[connection]
                verdict = worker.verdict(connection in ready, patience)
                if verdict is None:
                    continue
                yield verdict
                if waiting and worker.process.is_alive():
                    worker.give(waiting.pop())
                else:
                    worker.end()
                    del workers[connection]
    finally:
        for worker in workers.values():
            worker.end()


class _Worker:
    """A process that runs one case after the other."""

    def __init__(self, context: Any, find: Callable[[], dict[str, Family]]) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, find), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, case: tuple[str, int]) -> None:
        self.case, self.since = case, time.monotonic()
        self.connection.send(case)

    def verdict(self, is_ready: bool, patience: float) -> Verdict | None:
        """What came of the case; None while it runs."""
        seconds = time.monotonic() - self.since
        try:
            if is_ready:
                verdict: Verdict = self.connection.recv()
                return verdict
        except (EOFError, ConnectionError):
            self.process.join()
            return Verdict(*self.case, "mishandled", seconds, f"ends its process ({self.process.exitcode})")
        if seconds < patience:
            return None
        self.process.kill()
        self.process.join()
        return Verdict(*self.case, "mishandled", seconds, f"does not end within {patience:g} s")

    def end(self) -> None:
        self.connection.close()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()  # also counts its CPU time


def _serve(connection: Connection, find: Callable[[], dict[str, Family]]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    with tempfile.TemporaryDirectory(prefix="fuzz-shared-") as folder, prepared(Path(folder), find()) as run:
        while True:
            try:
                name, seed = connection.recv()
            except (EOFError, KeyboardInterrupt):
                return
            connection.send(run(name, seed))


def report(cases: Sequence[tuple[str, int]], *, processes: int | None = None) -> int:
    """Run cases with a progress bar, print what was mishandled and the counts; returns the exit status.

    Ctrl-C ends the run; what was tried until then is printed all the same.
    """
    tally, started = Tally(), time.monotonic()
    is_whole = False
    with tqdm(total=len(cases), desc="faults", unit="case", mininterval=1) as progress:
        try:
            for verdict in run_all(cases, processes=processes or os.cpu_count() or 1):
                tally.add(verdict)
                if verdict.outcome == "mishandled":
                    progress.write(f"mishandled: {verdict.complaint}\n  {again(verdict)}", file=sys.stderr)
                progress.update()
            is_whole = True
        except KeyboardInterrupt:
            pass
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(tally.table())
    print(
        f"\n{tally.outcomes.total()} of {len(cases)} cases in {(time.monotonic() - started) / 60:.1f} minutes, "
        f"{used.ru_utime + used.ru_stime:.0f} s of CPU time, load of the machine {os.getloadavg()[1]:.1f}"
    )
    return (1 if tally.mishandled else 0) if is_whole else 130
