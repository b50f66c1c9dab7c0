"""Policies as one graph in a file of ONNX or OpenVINO, which runs without PyTorch and without this package."""

from policy.exported.description import Description, ExportError
from policy.exported.exported_policy import ExportedPolicy, open_exported
from policy.exported.graph_files import FORMATS, write_exported

__all__ = ["FORMATS", "Description", "ExportError", "ExportedPolicy", "open_exported", "write_exported"]
