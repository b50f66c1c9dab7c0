"""Solvers of the diffusion process, as data."""
