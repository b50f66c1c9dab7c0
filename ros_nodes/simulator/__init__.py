"""The PushT simulator as a robot."""
