"""Demonstrations, recorded: the messages of a robot's topics, one bag an episode."""
