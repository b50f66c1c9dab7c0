"""Networks: an action sequence, a timestep and a condition → noise."""
