"""Policies served for one batch size: all that can be computed beforehand is, and an engine evaluates the network."""

from policy.runtime.engine import EngineError
from policy.runtime.runtime import ENGINES, Runtime

__all__ = ["ENGINES", "EngineError", "Runtime"]
