"""One case: a fault, what is tried with it, and the verdict."""

from __future__ import annotations

import io
import resource
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

Outcome: TypeAlias = Literal["refused", "accepted"]
Try: TypeAlias = Callable[[], Outcome]
"""Raises `Mishandled`, or anything else, for what is not as documented."""

MOST_BYTES = 200 << 20  # of memory on top, in one case


class Mishandled(Exception):
    """What no document promises. The message says what."""


@dataclass(frozen=True)
class Fault:
    """A fault that is in place: what it is, and the try that meets it."""

    text: str
    attempt: Try


Inject: TypeAlias = Callable[[np.random.Generator, Path], Fault]
"""(random numbers of the case, empty folder of the case) → fault."""


@dataclass(frozen=True)
class Family:
    """Cases of one kind.

    Attributes:
        name: name on the command line.
        share: share of all cases.
        prepare: called once a process with a folder for what all cases share.
        most_seconds: CPU time of this process that a case may take. Not wall time: the machine may be busy.
    """

    name: str
    share: float
    prepare: Callable[[Path], Inject]
    most_seconds: float = 1.0


@dataclass(frozen=True)
class Verdict:
    """What became of a case; `complaint` is empty for one that was handled."""

    family: str
    seed: int
    outcome: Literal["refused", "accepted", "mishandled"]
    seconds: float
    complaint: str = ""


def case_seed(seed: int, index: int) -> int:
    """Seed of the case with this number in a run."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0])


def run_case(family: Family, inject: Inject, seed: int) -> Verdict:
    """Inject the fault of a case and judge what happens. Nothing but the seed decides the case."""
    rng = np.random.default_rng([zlib.crc32(family.name.encode()), seed])
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        fault = inject(rng, Path(folder))
        before, started = _reset_peak(), time.process_time()
        outcome: Literal["refused", "accepted", "mishandled"] = "mishandled"
        complaint = ""
        try:
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = fault.attempt()
        except Mishandled as error:
            complaint = str(error)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            complaint = f"raises {_described(error)}"
        seconds, memory = time.process_time() - started, _peak() - before
    if not complaint and seconds > family.most_seconds:
        complaint = f"takes {seconds:.1f} s, at most {family.most_seconds:g} s are allowed"
    if not complaint and memory > MOST_BYTES:
        complaint = f"takes {memory >> 20} MiB, at most {MOST_BYTES >> 20} MiB are allowed"
    if complaint:
        return Verdict(family.name, seed, "mishandled", seconds, f"{fault.text}: {complaint}")
    return Verdict(family.name, seed, outcome, seconds)


def try_to(
    act: Callable[[], object], *, errors: type[Exception] | tuple[type[Exception], ...], naming: str
) -> Outcome:
    """What becomes of an act that may be refused with one of these errors in one line that names the culprit.

    The act checks for itself that what it gets is right.
    """
    try:
        act()
    except errors as error:
        message = str(error)
        if naming not in message:
            raise Mishandled(f"the error does not name {naming!r}: {message!r}") from error
        if len(message.splitlines()) != 1:
            raise Mishandled(f"the error has more than one line: {message!r}") from error
        if len(message) > 1000:
            raise Mishandled(f"the error has {len(message)} letters: {message[:200]!r}…") from error
        return "refused"
    return "accepted"


def _described(error: BaseException) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"{text[:300]} ({Path(place.filename).name}:{place.lineno})"


def _reset_peak() -> int:
    """Forget the largest memory that this process had, and return the current one, in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # no Linux: the peak is that since the start, so that only a new one counts
        return _peak()
    return _peak()


def _peak() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return int(status.partition("VmHWM:")[2].split()[0]) << 10
