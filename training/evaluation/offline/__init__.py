"""Judging a policy without a simulator: its sampled actions beside demonstrated ones."""
