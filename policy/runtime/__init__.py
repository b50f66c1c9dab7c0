"""Policies whose network an engine evaluates, and in which all is prepared that can be."""

from policy.runtime.engine import EngineError
from policy.runtime.runtime import CHUNK_ENGINES, ENGINES, Runtime, best_engine
from policy.runtime.serving import ENGINE_CHOICES, PLAIN, Policy, serve

__all__ = [
    "CHUNK_ENGINES",
    "ENGINES",
    "ENGINE_CHOICES",
    "PLAIN",
    "EngineError",
    "Policy",
    "Runtime",
    "best_engine",
    "serve",
]
