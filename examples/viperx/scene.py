"""The scene in MuJoCo: a ViperX 300 of gym-aloha, a table and two buttons."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import mujoco

ARM = "vx300s_left"  # name of one of gym-aloha's two arms
ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_angle", "wrist_rotate")
FINGERS = ("left_finger", "right_finger")

TIMESTEP = 0.002  # s
BUTTONS = {"first": "0.3 0.7 0.35 1", "second": "0.85 0.3 0.25 1"}  # colours
BUTTON_RADIUS, BUTTON_TOP, BUTTON_TRAVEL = 0.04, 0.032, 0.012  # m

# Stiffness in N·m/rad (fingers: N/m) and reflected inertia in kg·m² (fingers: kg) of each servo. The servos are ours:
# those of gym-aloha stop up to 0.06 rad short of their target, for the friction that it gives the joints.
SERVOS = {
    "waist": (400.0, 0.3),
    "shoulder": (800.0, 0.5),
    "elbow": (400.0, 0.3),
    "forearm_roll": (80.0, 0.05),
    "wrist_angle": (80.0, 0.05),
    "wrist_rotate": (40.0, 0.02),
    "left_finger": (400.0, 0.2),
    "right_finger": (400.0, 0.2),
}


def build_model() -> mujoco.MjModel:
    """The scene. Its origin is on the table, under the arm's waist; x points away from the arm, z up; lengths in m.

    Raises:
        ModuleNotFoundError: without gym-aloha, whose meshes, inertias and joint limits it takes.
    """
    assets = _assets()
    buttons = "".join(_button(name, color) for name, color in BUTTONS.items())
    excluded = "".join(
        f'<exclude body1="world" body2="{name}"/>' for name in BUTTONS
    )  # it sinks into the table
    spec = mujoco.MjSpec.from_string(
        f"""
        <mujoco model="viperx">
          <compiler meshdir="{assets}"/>
          <option timestep="{TIMESTEP}"/>
          <visual>
            <headlight ambient="0.4 0.4 0.4" diffuse="0.4 0.4 0.4"/>
            <global offwidth="1280" offheight="960"/>
          </visual>
          <asset><texture name="sky" type="skybox" builtin="flat" rgb1="1 1 1" width="8" height="8"/></asset>
          <include file="{assets / "vx300s_dependencies.xml"}"/>
          <worldbody>
            <light pos="0.5 -0.5 1.5" dir="-0.2 0.4 -1"/>
            <geom name="table" type="box" size="0.5 0.5 0.02" pos="0.2 0 -0.02" rgba="0.85 0.8 0.72 1"/>
            <camera name="scene" pos="0.79 -0.84 0.585" xyaxes="0.819 0.574 0 -0.242 0.346 0.906"/>
            {buttons}
            <include file="{assets / f"{ARM}.xml"}"/>
          </worldbody>
          <contact>
            {excluded}
          </contact>
        </mujoco>
        """
    )
    spec.body(ARM).pos = (0.0, 0.0, 0.0)
    for body in spec.bodies:
        if body.name.startswith(f"{ARM}/"):
            body.gravcomp = 1.0  # as the arm's own controller compensates its weight
    for name, (stiffness, armature) in SERVOS.items():
        joint = spec.joint(f"{ARM}/{name}")
        joint.frictionloss = 0.0
        joint.armature = armature
        servo = spec.add_actuator(
            name=name,
            target=joint.name,
            trntype=mujoco.mjtTrn.mjTRN_JOINT,
            ctrllimited=True,
            ctrlrange=joint.range,
        )
        servo.set_to_position(kp=stiffness, dampratio=1.0)
    return spec.compile()


def _button(name: str, color: str) -> str:
    """A disk that a spring of 300 N/m holds up, and that 4 N push down."""
    return f"""
      <body name="{name}" pos="0 0 {BUTTON_TOP - 0.012}">
        <joint name="{name}" type="slide" axis="0 0 1" limited="true" range="{-BUTTON_TRAVEL} 0" stiffness="300"
               damping="5"/>
        <inertial pos="0 0 0" mass="0.05" diaginertia="0.00003 0.00003 0.00005"/>
        <geom name="{name}" type="cylinder" size="{BUTTON_RADIUS} 0.012" rgba="{color}"/>
      </body>"""


def _assets() -> Path:
    # Found without importing gym_aloha, which would import dm_control.
    spec = find_spec("gym_aloha")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the arm needs: pip install gym-aloha==0.1.5", name="gym_aloha")
    return Path(spec.submodule_search_locations[0]) / "assets"
