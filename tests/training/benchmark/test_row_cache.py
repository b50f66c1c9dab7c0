from __future__ import annotations

from pathlib import Path

import pytest

from training.benchmark.row_cache import Row, RowCache, Task


@pytest.fixture
def cache(tmp_path: Path) -> RowCache:
    return RowCache(tmp_path / "rows", {"checkpoint": "abc"})


def never() -> Row:
    raise AssertionError("measured again")


def test_a_measured_row_is_not_measured_again(cache: RowCache) -> None:
    first = cache.find_or_measure({"steps": (1, 2)}, lambda: {"error": 0.5})
    assert first["error"] == 0.5
    assert first["code"]
    assert cache.find_or_measure({"steps": [1, 2]}, never) == first
    assert RowCache(cache.directory, {"checkpoint": "abc"}).find({"steps": [1, 2]}) == first


def test_whatever_decides_a_row_makes_it_another_one(cache: RowCache) -> None:
    cache.find_or_measure({"steps": 1}, lambda: {"error": 0.5})
    assert cache.find({"steps": 2}) is None
    assert cache.find({"steps": 1, "seed": 0}) is None
    assert RowCache(cache.directory, {"checkpoint": "another"}).find({"steps": 1}) is None


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"identity": {"checkpoint": "abc", "steps": 1}}'])
def test_a_damaged_file_is_measured_again(cache: RowCache, damaged: str) -> None:
    cache.find_or_measure({"steps": 1}, lambda: {"error": 0.5})
    (path,) = cache.directory.iterdir()
    path.write_text(damaged)
    assert cache.find_or_measure({"steps": 1}, lambda: {"error": 0.25})["error"] == 0.25
    assert cache.find_or_measure({"steps": 1}, never)["error"] == 0.25


def test_a_row_that_cannot_be_measured_leaves_nothing(cache: RowCache) -> None:
    with pytest.raises(AssertionError, match="measured again"):
        cache.find_or_measure({"steps": 1}, never)
    with pytest.raises(ValueError, match="not JSON compliant"):
        cache.find_or_measure({"steps": 1}, lambda: {"error": float("nan")})
    assert not cache.directory.exists() or not list(cache.directory.iterdir())


def test_only_missing_rows_are_measured_in_the_order_given(cache: RowCache) -> None:
    measured = []

    def task(steps: int) -> Task:
        def measure() -> Row:
            measured.append(steps)
            return {"error": 0.0}

        return Task(f"T = {steps}", steps, {"steps": steps}, measure)

    cache.measure_all([task(2)], "test")
    cache.measure_all([task(3), task(2), task(1)], "test")
    assert measured == [2, 3, 1]
