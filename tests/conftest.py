from __future__ import annotations

from pathlib import Path

import pytest

DEMONSTRATIONS = Path(__file__).resolve().parents[2] / "shared" / "data" / "pusht_cchi_v7_replay.zarr"


@pytest.fixture(scope="session")
def demonstrations_path() -> Path:
    if not DEMONSTRATIONS.exists():
        pytest.skip(f"needs the PushT demonstrations at {DEMONSTRATIONS} (see README)")
    return DEMONSTRATIONS
