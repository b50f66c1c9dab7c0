"""Demonstrations: their download, their store, and windows cut out of them."""
