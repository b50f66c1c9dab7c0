"""From messages to observations."""
