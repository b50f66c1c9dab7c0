"""Training of the base policy."""
