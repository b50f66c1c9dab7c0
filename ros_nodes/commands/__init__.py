"""From action chunks to trajectories, and their execution."""
