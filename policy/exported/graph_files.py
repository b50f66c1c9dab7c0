"""Graphs as files of ONNX or OpenVINO: written, described, and run."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from policy.atomic_write import atomic_write
from policy.exported.description import METADATA_KEY, Description, ExportError, description_from_json
from policy.runtime.chunk_function import ChunkFunction, export_chunk_function
from policy.runtime.engine import require_library

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Arrays: TypeAlias = Mapping[str, np.ndarray]
Run: TypeAlias = Callable[[Arrays], list[np.ndarray]]
"""Inputs by name, each (B, …) float32 → outputs in order."""

OLDEST_OPSET, OPSET, NEWEST_OPSET = 18, 20, 23
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
FORMATS = tuple(SUFFIXES)


@dataclass(frozen=True)
class Graph:
    """A graph in memory: `onnx.ModelProto` or `openvino.Model`."""

    format: str
    model: Any


def build_graph(function: ChunkFunction, format: str, *, opset: int = OPSET) -> Graph:
    """The graph of a chunk function, for any batch size.

    Args:
        function: chunk function.
        format: one of `FORMATS`.
        opset: version of ONNX's operators.

    Raises:
        EngineError: if the library of the format is not installed.
        ExportError: for a format or opset that does not exist.
    """
    if format not in FORMATS:
        raise ExportError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
    if not OLDEST_OPSET <= opset <= NEWEST_OPSET:
        raise ExportError(f"opset must be in {OLDEST_OPSET} … {NEWEST_OPSET}, got {opset}")
    needed = ("onnx", "onnxscript", "onnxruntime") if format == "onnx" else ("openvino",)
    libraries = [require_library(f"format={format}", library) for library in needed]
    with _quiet():
        program = export_chunk_function(function)
        if format == "onnx":
            return Graph(format, _onnx_model(program, function, opset))
        model = libraries[0].convert_model(program)
    for ports, names in ((model.inputs, function.inputs), (model.outputs, function.outputs)):
        for port, name in zip(ports, names, strict=True):
            port.get_tensor().set_names({name})
    return Graph(format, model)


def _onnx_model(program: ExportedProgram, function: ChunkFunction, opset: int) -> Any:
    with torch.no_grad():
        exported = torch.onnx.export(
            program,
            (),
            input_names=list(function.inputs),
            output_names=list(function.outputs),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    model = exported.model_proto
    named = model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == named:
                size.dim_param = "batch"
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say about parts of their own."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def describe_graph(graph: Graph, description: Description) -> None:
    """Put a description into a graph's metadata, and units and meanings beside ONNX's inputs and outputs."""
    text = description.to_json()
    if graph.format == "openvino":
        graph.model.set_rt_info(text, [METADATA_KEY, "description"])
        return
    model = graph.model
    kept = [entry for entry in model.metadata_props if entry.key != METADATA_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    entry = model.metadata_props.add()
    entry.key, entry.value = METADATA_KEY, text
    tensors = (*description.inputs, *description.outputs)
    for value, tensor in zip((*model.graph.input, *model.graph.output), tensors, strict=True):
        value.doc_string = str(tensor)


@contextmanager
def write_exported(path: Path, graph: Graph) -> Iterator[Path]:
    """Write a graph under a temporary name, which is renamed at the end; an exception leaves no file.

    Format `openvino` makes two files: the graph ``.xml``, and its weights ``.bin`` beside it.

    Yields:
        The temporary file, to be checked. `save_graph` may write it again.

    Raises:
        ExportError: for a name with another ending than the format's.
    """
    suffix = SUFFIXES[graph.format]
    if path.suffix != suffix:
        raise ExportError(f"output of format={graph.format} must end with {suffix}, got {path}")
    if graph.format == "onnx":
        with atomic_write(path) as temporary:
            save_graph(graph, temporary)
            yield temporary
        return
    with atomic_write(path) as temporary, atomic_write(path.with_suffix(".bin")):
        save_graph(graph, temporary)
        yield temporary


def save_graph(graph: Graph, path: Path) -> None:
    """Write a graph to a file."""
    if graph.format == "onnx":
        path.write_bytes(graph.model.SerializeToString())
    else:
        require_library("openvino", "openvino").save_model(graph.model, path, compress_to_fp16=False)


def open_graph(
    path: str | Path,
    *,
    threads: int = 1,
    providers: tuple[str, ...] = (),
    batch_size: int | None = None,
    bfloat16: bool = False,
) -> tuple[Description, Run]:
    """Open a file of `write_exported`.

    Args:
        path: ``.onnx`` or ``.xml``.
        threads: number of CPU threads.
        providers: ONNX Runtime's execution providers, in order; by default its CPU.
        batch_size: the only one that will be asked for, with which OpenVINO takes half the time; None for any.
        bfloat16: whether OpenVINO may compute in it, where the CPU can.

    Raises:
        ExportError: for a missing, damaged or foreign file, one of another version, or a provider that is missing.
        EngineError: if the library that runs it is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    if path.suffix == ".onnx":
        if bfloat16:
            raise ExportError(f"{path}: bfloat16 is OpenVINO's, which runs .xml")
        return _open_onnx(path, threads, providers or ("CPUExecutionProvider",))
    if path.suffix != ".xml":
        raise ExportError(f"{path}: must end with .onnx or .xml")
    if providers:
        raise ExportError(f"{path}: providers are ONNX Runtime's, which runs .onnx alone")
    return _open_openvino(path, threads, batch_size, bfloat16=bfloat16)


def _open_onnx(path: Path, threads: int, providers: tuple[str, ...]) -> tuple[Description, Run]:
    library = require_library("onnxruntime", "onnxruntime")
    for provider in providers:
        if provider not in library.get_available_providers():
            available = ", ".join(library.get_available_providers())
            raise ExportError(
                f"ONNX Runtime has no {provider} here, only {available}; pip install onnxruntime-gpu"
            )
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    try:
        session = library.InferenceSession(str(path), options, providers=list(providers))
    except Exception as error:  # its exceptions have no common class but this
        raise ExportError(f"{path}: ONNX Runtime cannot open it ({str(error)[:300]})") from error
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    description = description_from_json(text, str(path))

    def run(inputs: Arrays) -> list[np.ndarray]:
        outputs: list[np.ndarray] = session.run(None, dict(inputs))
        return outputs

    return description, run


def _open_openvino(
    path: Path, threads: int, batch_size: int | None, *, bfloat16: bool
) -> tuple[Description, Run]:
    library = require_library("openvino", "openvino")
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "ENABLE_CPU_PINNING": False,  # other processes use the cores too
    }
    core = library.Core()
    try:
        model = core.read_model(path)
        has_text = model.has_rt_info([METADATA_KEY, "description"])
        text = str(model.get_rt_info([METADATA_KEY, "description"]).value) if has_text else None
        description = description_from_json(text, str(path))
        if batch_size is not None:
            model.reshape({tensor.name: [batch_size, *tensor.shape] for tensor in description.inputs})
        request = _compiled(core, model, options).create_infer_request()
    except RuntimeError as error:
        if isinstance(error, ExportError):
            raise
        raise ExportError(f"{path}: OpenVINO cannot open it ({str(error)[:300]})") from error

    def run(inputs: Arrays) -> list[np.ndarray]:
        if batch_size not in (None, given := len(inputs["observations"])):
            raise ValueError(f"observations have batch size {given}, {path} was opened for {batch_size}")
        found = request.infer(dict(inputs))
        return [np.array(found[index]) for index in range(len(description.outputs))]

    return description, run


def _compiled(core: Any, model: Any, options: Mapping[str, Any]) -> Any:
    """The model on the CPU. OpenVINO 2026.4.1 fails to fuse the elementwise operations of some Picard graphs."""
    try:
        return core.compile_model(model, "CPU", dict(options))
    except RuntimeError as error:
        if "TokenizeSnippets" not in str(error):
            raise
        return core.compile_model(model, "CPU", {**options, "SNIPPETS_MODE": "DISABLE"})
