"""Measurements of what the project claims about its speed; each module is a command."""
