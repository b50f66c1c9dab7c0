"""Hours of episodes, watched."""
