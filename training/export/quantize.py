"""Eight-bit graphs by NNCF, calibrated on demonstrations."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from torch import Tensor

from policy.exported.graph_files import Graph
from policy.runtime.engine import require_library


def quantized(graph: Graph, calls: Sequence[Mapping[str, Tensor]]) -> Graph:
    """A graph whose convolutions and products are of 8-bit integers, with scales per channel.

    Args:
        graph: graph of float32.
        calls: inputs, by name, that the ranges of the activations are measured on.

    Raises:
        EngineError: if NNCF is not installed.
    """
    nncf = require_library("precision=int8", "nncf")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    arrays = [{name: value.numpy() for name, value in call.items()} for call in calls]
    model = nncf.quantize(
        graph.model,
        nncf.Dataset(arrays),
        preset=nncf.QuantizationPreset.MIXED,  # Mish is not symmetric
        subset_size=len(arrays),
    )
    return Graph(graph.format, model)
