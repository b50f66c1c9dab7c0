"""Demonstrations: where they come from, how they are stored and cut into windows."""
