from __future__ import annotations

import gc
import threading

import rclpy
from rclpy.executors import SingleThreadedExecutor

from ros_nodes.node_process import Ending

WAKES = 500


def test_a_node_is_served_until_its_end_without_growing() -> None:
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("served", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    ending = Ending(executor)
    served = threading.Semaphore(0)
    bell = node.create_guard_condition(served.release)
    spinning = threading.Thread(target=ending.spin)
    spinning.start()

    def objects_after_wakes() -> int:
        for _ in range(WAKES):
            bell.trigger()
            assert served.acquire(timeout=10)
        gc.collect()
        return len(gc.get_objects())

    before = objects_after_wakes()
    assert objects_after_wakes() - before < WAKES / 5
    ending.tell()
    spinning.join(10)
    assert not spinning.is_alive()
    node.destroy_node()
    rclpy.shutdown(context=context)
