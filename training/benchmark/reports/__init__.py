"""The reports of `pcm-benchmark`, one a file."""
