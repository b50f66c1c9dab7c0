from __future__ import annotations

import csv
from pathlib import Path

import imageio.v2 as imageio

from training.benchmark.run import main


def test_a_row_for_each_sampler_and_way_that_gives_the_policys_answer(
    benchmark_arguments: list[str], tmp_path: Path
) -> None:
    arguments = [
        *benchmark_arguments,
        "report=whole_graph",
        "device=cpu",
        "whole_graph.dpmpp_2m_steps=[2]",
        "whole_graph.picard_steps=[]",
        "whole_graph.threads=[1]",
        "whole_graph.calls=20",
    ]
    assert main(arguments) == 0

    with open(tmp_path / "out" / "whole_graph.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["way"] for row in rows] == [
        "evaluation by evaluation",
        "whole graph",
        "whole graph, bfloat16",
    ]
    for row in rows:
        assert (row["steps"], row["depth"], row["threads"]) == ("2", "2", "1")
        assert 0 < float(row["ms_p50"]) <= float(row["ms_p99"])
        assert float(row["times_floor"]) > 0
        assert float(row["difference"]) < (0.1 if "bfloat16" in row["way"] else 1e-5)
    assert imageio.imread(tmp_path / "out" / "whole_graph.png").std() > 0
