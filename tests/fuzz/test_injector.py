"""The injector itself: what it counts as mishandled, and that its cases can be run again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.fuzz.__main__ import planned
from tests.fuzz.case import case_seed, run_case
from tests.fuzz.damage import damaged_bytes, damaged_json
from tests.fuzz.planted import planted
from tests.fuzz.run import Tally, again, run_all


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("another error", "raises KeyError"),
        ("unnamed", "does not name 'file.zarr'"),
        ("two lines", "more than one line"),
        ("wrong", "accepts 3 for 4"),
        ("memory", "MiB"),
        ("time", "at most 0.2 s"),
    ],
)
def test_what_no_document_promises_is_mishandled(tmp_path: Path, name: str, complaint: str) -> None:
    family = planted()[name]
    verdict = run_case(family, family.prepare(tmp_path), 5)
    assert verdict.outcome == "mishandled"
    assert complaint in verdict.complaint


@pytest.mark.parametrize(("name", "outcome"), [("fine", "accepted"), ("refused", "refused")])
def test_what_is_documented_is_handled(tmp_path: Path, name: str, outcome: str) -> None:
    family = planted()[name]
    assert run_case(family, family.prepare(tmp_path), 5).outcome == outcome


def test_a_process_that_dies_or_hangs_costs_its_case_alone() -> None:
    cases = [("fine", 1), ("death", 2), ("fine", 3), ("hang", 4), ("fine", 5)]
    tally = Tally()
    for verdict in run_all(cases, processes=1, find=planted, patience=20.0):
        tally.add(verdict)
    assert tally.outcomes == {
        ("fine", "accepted"): 3,
        ("death", "mishandled"): 1,
        ("hang", "mishandled"): 1,
    }
    death, hang = tally.mishandled
    assert "ends its process (7)" in death.complaint
    assert "does not end" in hang.complaint
    assert again(death) == "python -m tests.fuzz --case death:2"
    assert "| all | 5 | 0 | 3 | 2 |" in tally.table()


def test_a_seed_decides_a_case(tmp_path: Path) -> None:
    inject = planted()["fine"].prepare(tmp_path)
    texts = [inject(np.random.default_rng(seed), tmp_path).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_run_is_decided_by_its_seed_and_divided_by_the_shares() -> None:
    cases = planned({"a": 0.3, "b": 0.1}, seed=1, cases=40)
    assert cases == planned({"a": 0.3, "b": 0.1}, seed=1, cases=40)
    assert [name for name, _ in cases].count("a") == 30
    assert [name for name, _ in cases[:20]].count("a") == 15
    assert len({seed for _, seed in cases}) == 40
    assert case_seed(1, 0) != case_seed(2, 0)


def test_damage_is_done_to_a_copy() -> None:
    content, value = bytes(range(200)), {"a": [1, 2, {"b": 3.0}], "c": "d"}
    kinds, places, changes = set(), set(), 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        damaged, text = damaged_bytes(rng, content, start=100)
        assert damaged[:100] == content[: min(100, len(damaged))] or "empty" in text or "swap" in text
        kinds.add(text.split()[0])
        changed, text = damaged_json(rng, value)
        places.add(text.split()[0])
        assert value == {"a": [1, 2, {"b": 3.0}], "c": "d"}
        changes += repr(changed) != repr(value)
    assert len(kinds) == 11
    assert changes > 250  # 3.0 may become 3.0
    assert {"all", "a", "a.0", "a.2.b", "c"} <= places
