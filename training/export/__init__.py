"""`pcm-export`: a policy as one graph in a file."""
