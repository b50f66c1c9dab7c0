"""A seeded fault injector: whatever arrives damaged or hostile is refused by name, or is what was saved.

python -m tests.fuzz --seed 0 --cases 10000

It lives with the tests, as robots need none of it.
"""
