"""Episodes of a policy, and what they say."""
