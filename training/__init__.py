"""Training, evaluation and benchmarks: everything that needs data or a simulator beside the policy."""
