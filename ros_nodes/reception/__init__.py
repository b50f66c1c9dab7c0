"""What arrives from other nodes, before anything is believed: times, sizes, and counts of what is refused."""
