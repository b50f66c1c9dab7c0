"""Training, evaluation and benchmarks: everything that needs data or a simulator beside the policy."""

from importlib.util import find_spec

if find_spec("hydra") is None:
    raise ModuleNotFoundError("training and evaluation need: pip install 'pcm_policy[train]'", name="hydra")
