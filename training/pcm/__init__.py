"""Picard trajectories, and Picard consistency training on them."""
