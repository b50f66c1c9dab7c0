"""A policy node whose policy raises, holds its answer back or answers NaN while a file of that name (`raise`, `hold`,
`nan`) is in the folder that is its first argument, and whose engine cannot be prepared (`no_engine`) or not yet
(`hold_engine`)."""

import sys
import time
from pathlib import Path

from policy import DiffusionPolicy
from policy.runtime import EngineError, Runtime
from ros_nodes.policy_node.node import main

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


make_runtime = Runtime.__init__


def make_runtime_or_fail(runtime, *arguments, **options):
    while (faults / "hold_engine").exists():
        time.sleep(0.01)
    if (faults / "no_engine").exists():
        raise EngineError("out of fuel")
    make_runtime(runtime, *arguments, **options)


DiffusionPolicy.predict = predict_or_fail
Runtime.__init__ = make_runtime_or_fail
sys.exit(main())
