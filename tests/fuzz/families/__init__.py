"""What faults are injected into."""

from __future__ import annotations

from tests.fuzz.case import Family


def families() -> dict[str, Family]:
    """All families by name; messages only where ROS is."""
    # Here, since each brings large libraries, which not everybody who runs cases needs.
    from tests.fuzz.families.checkpoints import CHECKPOINTS
    from tests.fuzz.families.command_bodies import COMMAND_BODIES
    from tests.fuzz.families.command_options import COMMAND_OPTIONS
    from tests.fuzz.families.demonstrations import DEMONSTRATIONS
    from tests.fuzz.families.training_states import TRAINING_STATES
    from tests.fuzz.families.trajectories import TRAJECTORIES

    found = [CHECKPOINTS, TRAINING_STATES, DEMONSTRATIONS, TRAJECTORIES, COMMAND_OPTIONS, COMMAND_BODIES]
    try:
        import rclpy  # noqa: F401
    except ImportError:
        pass
    else:
        from tests.fuzz.families.messages import MESSAGES

        found.append(MESSAGES)
    return {family.name: family for family in found}
