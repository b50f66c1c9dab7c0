"""Whether a task is PushT, so that what is PushT's alone can be done with it."""

from __future__ import annotations

from policy.task import Task, task_difference
from training.data.task_file import load_task


def difference_from_pusht(task: Task) -> str:
    """In words, what of a task is not PushT's; empty for PushT."""
    return task_difference(task, load_task("pusht").task)


def is_pusht_seen(task: Task) -> bool:
    """Whether a task is PushT seen by a camera, in place of keypoints."""
    return not task_difference(task, load_task("pusht_image").task)
