"""A node as a process that runs until it is interrupted."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from threading import Event

import rclpy
from rclpy.exceptions import ParameterException
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node


def run_node(make: Callable[[], Node], name: str, args: Sequence[str] | None = None) -> int:
    """Run a node until it is interrupted; the process's exit status.

    Args:
        make: makes the node; what is wrong with its parameters ends the process with one line.
        name: of the node, for that line.
        args: of ROS.
    """
    # rclpy ends the context at Ctrl-C; a KeyboardInterrupt on top could strike, and get lost, anywhere.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    rclpy.init(args=args)
    node = None
    try:
        node = make()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        executor.spin()
    except ExternalShutdownException:
        pass
    except (ParameterException, ValueError) as error:
        get_logger(name).fatal(str(error))
        return 1
    except Exception:
        if rclpy.ok():
            raise  # otherwise a signal ended the context while the executor was using it
    finally:
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


class Ending:
    """An executor's nodes are served until another thread tells to end.

    In place of rclpy's `spin_until_future_complete`, which keeps a callback for each time that it woke: 140 MB an hour.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._told = Event()

    def tell(self) -> None:
        """End, after the callback that runs."""
        self._told.set()
        self._executor.create_task(lambda: None)  # wakes it

    def spin(self) -> None:
        """Serve the nodes until `tell` is called."""
        while not self._told.is_set():
            self._executor.spin_once()
