from __future__ import annotations

import numpy as np

from ros_nodes.policy_node.measured_position import MeasuredPosition


def test_the_newest_measurement_of_each_joint_counts_whatever_its_source() -> None:
    measured = MeasuredPosition(("elbow", "grip"), {"arm": {"elbow": 1}, "hand": {"grip": 0}})
    assert measured.since(0) is None
    measured.note("arm", 10, np.array([1.0, 2.0]))
    assert measured.since(0) is None
    measured.note("hand", 20, np.array([3.0]))
    measured.note("camera", 30, np.array([9.0]))
    np.testing.assert_array_equal(measured.since(10), [2.0, 3.0])
    measured.note("arm", 30, np.array([4.0, 5.0]))
    np.testing.assert_array_equal(measured.since(20), [5.0, 3.0])


def test_old_measurements_say_nothing() -> None:
    measured = MeasuredPosition(("elbow",), {"arm": {"elbow": 0}})
    measured.note("arm", 10, np.array([1.0]))
    assert measured.since(11) is None
    measured.forget()
    assert measured.since(0) is None


def test_a_joint_that_no_source_measures_is_unknown() -> None:
    measured = MeasuredPosition(("elbow", "grip"), {"arm": {"elbow": 0}})
    measured.note("arm", 10, np.array([1.0]))
    assert measured.since(0) is None
