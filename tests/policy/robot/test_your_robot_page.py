from __future__ import annotations

import re
from pathlib import Path

from policy.robot.fit import filled_parts, task_of
from policy.robot.limit_choice import commanded_joints
from policy.robot.robot_file import load_robot

PAGE = Path(__file__).resolve().parents[3] / "docs" / "your_robot.md"


def test_the_arm_of_the_page_is_a_robot_that_fills_its_own_task(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    (tmp_path / "arm.yaml").write_text(block[1], encoding="utf-8")
    robot = load_robot(tmp_path / "arm.yaml")
    task = task_of(robot, name="arm", rate=1 / robot.control_period, sizes={})
    assert [(part.name, part.size) for part in task.observation] == [("arm", 6), ("gripper", 1)]
    assert len(filled_parts(robot, task)) == 2
    assert commanded_joints(robot, task).names[-1] == "finger"
    assert task.action.upper[-1] == 0.04
    # Its positions are observed as they are commanded, so that a policy is judged beside holding the last position.
    observed = {
        name_unit for part in task.observation for name_unit in zip(part.names, part.units, strict=True)
    }
    assert set(zip(task.action.names, task.action.units, strict=True)) <= observed
