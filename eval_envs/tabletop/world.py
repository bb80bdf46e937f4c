"""The world as MJCF text: table, blocks, zone, cameras, and a gripper that moves along x, y, z."""

from eval_envs.tabletop.layout import HALF_SIZES, MAX_BLOCKS, SHAPES, ZONE_HALF_SIZE

CONTROL_HZ = 10.0
SUBSTEPS = 20
MAX_OPENING = 0.08
"""Largest distance between the fingers [m]."""

_BLOCK_MASS_KG = 0.03
_ARM_MASS_KG = 0.6
_FINGER_MASS_KG = 0.04
_FINGER_FORCE_N = 3.0
_ARM_FORCE_N = 40.0
_ARM_RATE = 60.0
_FINGER_RATE = 40.0
"""Natural frequencies [rad/s] of the critically damped servos: both settle in a control step."""


def world_xml() -> str:
    """The world as MJCF text."""
    blocks = "".join(_block_xml(slot) for slot in range(MAX_BLOCKS))
    return f"""
<mujoco>
  <option timestep="{1 / CONTROL_HZ / SUBSTEPS}" integrator="implicitfast"
          cone="elliptic" impratio="10"/>
  <visual>
    <headlight ambient="0.45 0.45 0.45" diffuse="0.5 0.5 0.5" specular="0 0 0"/>
    <map znear="0.02"/>
  </visual>
  <default>
    <geom condim="6" friction="0.8 0.01 0.002" solref="0.01 1"/>
    <default class="finger">
      <geom friction="1.5 0.03 0.002" rgba="0.92 0.92 0.92 1"/>
      <joint type="slide" range="0 {MAX_OPENING / 2}" limited="true"/>
    </default>
  </default>
  <worldbody>
    <light pos="0 -0.3 1" dir="0 0.3 -1" directional="true"
           diffuse="0.35 0.35 0.35" specular="0 0 0"/>
    <camera name="front" pos="0 -0.43 0.52" xyaxes="1 0 0 0 0.745 0.667" fovy="37"/>
    <geom name="table" type="plane" size="1 1 0.1" rgba="0.16 0.16 0.19 1"/>
    <body name="zone" mocap="true">
      <geom type="box" size="{ZONE_HALF_SIZE} {ZONE_HALF_SIZE} 0.0008"
            rgba="0.75 0.75 0.78 1" contype="0" conaffinity="0"/>
    </body>
{_gripper_xml()}
{blocks}
  </worldbody>
  <equality>
    <joint joint1="left_finger" joint2="right_finger" polycoef="0 1 0 0 0" solref="0.01 1"/>
  </equality>
  <actuator>
{_actuators_xml()}
  </actuator>
</mujoco>"""


def _gripper_xml() -> str:
    slides = "".join(
        f'<joint name="{name}" type="slide" axis="{axis}"/>'
        for name, axis in zip("xyz", ("1 0 0", "0 1 0", "0 0 1"), strict=True)
    )
    fingers = "".join(
        f"""
      <body name="{side}_finger" gravcomp="1">
        <joint name="{side}_finger" axis="{sign} 0 0" class="finger"/>
        <geom class="finger" type="box" size="0.006 0.016 0.03" pos="{sign * 0.006} 0 0.02"
              mass="{_FINGER_MASS_KG}"/>
      </body>"""
        for side, sign in (("left", -1), ("right", 1))
    )
    return f"""
    <body name="gripper" gravcomp="1">
      {slides}
      <geom name="palm" type="box" size="0.052 0.012 0.008" pos="0 0 0.06"
            rgba="0.35 0.35 0.4 1" mass="{_ARM_MASS_KG}"/>
      <camera name="wrist" pos="0 -0.07 0.065" xyaxes="1 0 0 0 0.83 0.56" fovy="76"/>
      {fingers}
    </body>"""


def _block_xml(slot: int) -> str:
    shapes = "".join(_shape_xml(slot, shape) for shape in SHAPES)
    inertia = _BLOCK_MASS_KG * 0.04**2 / 6
    return f"""
    <body name="block{slot}">
      <freejoint name="block{slot}"/>
      <inertial pos="0 0 0" mass="{_BLOCK_MASS_KG}"
                diaginertia="{inertia} {inertia} {inertia}"/>{shapes}
    </body>"""


def _shape_xml(slot: int, shape: str) -> str:
    x, y, z = HALF_SIZES[shape]
    size = f"{x} {z}" if shape == "cylinder" else f"{x} {y} {z}"
    kind = "cylinder" if shape == "cylinder" else "box"
    return f'\n      <geom name="block{slot}_{shape}" type="{kind}" size="{size}"/>'


def _actuators_xml() -> str:
    mass = _ARM_MASS_KG + 2 * _FINGER_MASS_KG
    servos = [(axis, mass, _ARM_RATE, _ARM_FORCE_N) for axis in "xyz"]
    servos += [
        (f"{side}_finger", _FINGER_MASS_KG, _FINGER_RATE, _FINGER_FORCE_N)
        for side in ("left", "right")
    ]
    return "\n".join(
        f'    <position joint="{joint}" kp="{m * rate**2}" kv="{2 * m * rate}" '
        f'forcerange="-{force} {force}"/>'
        for joint, m, rate, force in servos
    )
