"""Policies for one batch size: everything that can be computed in advance is, and an engine evaluates the network."""

from policy.runtime.engine import EngineError
from policy.runtime.runtime import ENGINES, Runtime
from policy.runtime.serving import ENGINE_CHOICES, PLAIN, Policy, serve

__all__ = ["ENGINES", "ENGINE_CHOICES", "PLAIN", "EngineError", "Policy", "Runtime", "serve"]
