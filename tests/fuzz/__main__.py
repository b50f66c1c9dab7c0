"""`python -m tests.fuzz`, which `make fuzz` runs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from tests.fuzz.case import case_seed
from tests.fuzz.families import families
from tests.fuzz.run import report


def planned(names: dict[str, float], *, seed: int, cases: int) -> list[tuple[str, int]]:
    """The cases (family, seed) of a run, the families by their shares and mixed."""
    total = sum(names.values())
    counts = {name: round(cases * share / total) for name, share in names.items()}
    counts[next(iter(counts))] += cases - sum(counts.values())
    # Spread evenly, so that a run that is cut short has seen something of everything.
    places = [((i + 0.5) / count, name) for name, count in counts.items() for i in range(count)]
    return [(name, case_seed(seed, index)) for index, (_, name) in enumerate(sorted(places))]


def main(arguments: list[str] | None = None) -> int:
    # A shell lets its background jobs ignore Ctrl-C, which ends a run with what it has counted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The networks are tiny: more threads would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")
    known = families()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="seed of the run")
    parser.add_argument("--cases", type=int, default=10_000, help="number of cases")
    parser.add_argument("--only", choices=known, help="family whose cases alone are run")
    parser.add_argument("--case", metavar="FAMILY:SEED", help="run one case again")
    parser.add_argument("--processes", type=int, help="number of processes; one a core if not given")
    options = parser.parse_args(arguments)
    if options.case:
        name, _, seed = options.case.partition(":")
        if name not in known or not seed.isdecimal():
            parser.error(f"--case is FAMILY:SEED with a family of {', '.join(known)}, got {options.case!r}")
        return report([(name, int(seed))], processes=1)
    if options.cases < 1 or options.seed < 0:
        parser.error("--cases must be at least 1, and --seed not negative")
    chosen = {name: family.share for name, family in known.items() if options.only in (None, name)}
    return report(planned(chosen, seed=options.seed, cases=options.cases), processes=options.processes)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(main())
