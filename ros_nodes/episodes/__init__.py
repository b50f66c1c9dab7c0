"""Episodes one after the other, as `pcm-evaluate` runs them."""
