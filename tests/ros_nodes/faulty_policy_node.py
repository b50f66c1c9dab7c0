"""A policy node whose policy raises, holds its answer back or answers NaN while a file of that name (`raise`, `hold`,
`nan`) is in the folder that is its first argument."""

import sys
from pathlib import Path

from policy import DiffusionPolicy
from ros_nodes.policy_node import main

faults = Path(sys.argv[1])
predict = DiffusionPolicy.predict


def predict_or_fail(policy, observations, *arguments, **options):
    if (faults / "raise").exists():
        raise RuntimeError("out of patience")
    while (faults / "hold").exists():  # computing, as a slow policy would
        predict(policy, observations)
    prediction = predict(policy, observations, *arguments, **options)
    if (faults / "nan").exists():
        prediction.chunk.fill_(float("nan"))
    return prediction


DiffusionPolicy.predict = predict_or_fail
sys.exit(main())
