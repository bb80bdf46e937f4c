"""Robots that move as robots do, recorded into memory: clean, and with one fault at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.spatial.transform import Rotation

from data_tools.columns import missing_column
from data_tools.conventions import ActionSpec, CameraSpec, Conventions, GripperSpec, StateSpec
from data_tools.doctor.examination import validate
from data_tools.episode import Inspected, Observation, StoredFrames
from data_tools.errors import UserError

SIDE = 32
INSPECTED = Inspected(layouts=("memory",), evidence=(), warnings=())


@dataclass(frozen=True)
class MemoryEpisode:
    """An `Episode` of arrays; a picture that is None does not decode."""

    name: str
    states: np.ndarray
    commands: np.ndarray
    frames: Mapping[str, list]
    instruction: str = "put the red cup on the plate"
    is_success: bool | None = True
    attributes: Mapping[str, object] = field(default_factory=dict)
    clock: np.ndarray | None = None
    columns: tuple[str, ...] = ()

    @property
    def num_steps(self):
        return len(self.commands)

    def state(self):
        return self.states.astype(np.float32)

    def actions(self):
        return self.commands.astype(np.float32)

    def times(self):
        return self.clock

    def column(self, name):
        raise missing_column(self.name, name, ())

    def starts(self):
        return np.arange(self.num_steps)

    def stored_frames(self, camera):
        spec = CameraSpec(name=camera, height=SIDE, width=SIDE)
        return StoredFrames(spec, "raw", "", "")

    def image(self, camera, step):
        frame = self.frames[camera][step]
        if frame is None:
            raise UserError("a broken JPEG (premature end)")
        return frame

    def observation(self, step, cameras):
        images = {camera: self.image(camera, step) for camera in cameras}
        return Observation(images, self.state()[step], self.instruction)


@dataclass(frozen=True)
class MemoryDataset:
    conventions: Conventions
    episodes: list
    inspected: Inspected = INSPECTED
    fingerprint: str = "0" * 64
    columns: tuple[str, ...] = ()

    def __len__(self):
        return len(self.episodes)

    def __getitem__(self, index):
        return self.episodes[index]

    def declare(self, part: str, **changes: object) -> "MemoryDataset":
        """The same numbers, with fields of the state's or action's declaration changed."""
        values = self.conventions.model_dump()
        values[part] |= changes
        return replace(self, conventions=Conventions.model_validate(values))

    def change(self, episode: int, **changes) -> "MemoryDataset":
        """The dataset with one episode changed; a callable is given the old value."""
        episodes = list(self.episodes)
        old = episodes[episode]
        new = {
            name: change(getattr(old, name)) if callable(change) else change
            for name, change in changes.items()
        }
        episodes[episode] = replace(old, **new)
        return replace(self, episodes=episodes)

    def change_all(self, **changes) -> "MemoryDataset":
        dataset = self
        for index in range(len(self)):
            dataset = dataset.change(index, **changes)
        return dataset

    def set(self, part: str, episode: int, step, column, value) -> "MemoryDataset":
        """One value, or several, of 'states' or 'commands' replaced."""

        def put(array):
            array = array.copy()
            array[step, column] = value
            return array

        return self.change(episode, **{part: put})

    def see(self, camera: str, change: Callable, episode: int | None = None) -> "MemoryDataset":
        """Pictures changed by (step, picture) -> picture, in one episode or in all."""

        def changed(images):
            return {**images, camera: [change(*each) for each in enumerate(images[camera])]}

        if episode is None:
            return self.change_all(frames=changed)
        return self.change(episode, frames=changed)


def _path(rng, num_steps: int, hz: float, scale: np.ndarray) -> np.ndarray:
    """float64[t, d]: minimum-jerk movements between random places, with rests of a tenth."""
    places = [rng.uniform(-1, 1, len(scale)) * scale]
    rows: list[np.ndarray] = []
    while len(rows) < num_steps:
        goal = rng.uniform(-1, 1, len(scale)) * scale
        # no part faster than 2.5 a second at its peak, which is 1.875 times the mean speed
        shortest = float(np.abs(goal - places[-1]).max()) * 1.875 / 2.5
        steps = max(2, int(hz * (shortest + rng.uniform(0.5, 1.5))))
        s = np.arange(1, steps + 1) / steps
        shape = 10 * s**3 - 15 * s**4 + 6 * s**5
        rows += list(places[-1] + shape[:, None] * (goal - places[-1]))
        rows += [rows[-1]] * int(0.1 * steps)
        places.append(goal)
    return np.array(rows[:num_steps])


def _follow(target: np.ndarray, alpha: float, delay: int) -> np.ndarray:
    """What a first-order controller makes of targets: s[t+1] = s[t] + alpha (target[t] - s[t])."""
    late = np.concatenate([np.repeat(target[:1], delay, axis=0), target[: len(target) - delay]])
    start = late[:1]
    moved = start + lfilter([alpha], [1, alpha - 1], late - start, axis=0)
    return np.concatenate([start, moved[:-1]])


def _grip(rng, num_steps: int, hz: float) -> np.ndarray:
    """float64[t] of 1 (open) and 0 (closed), held for a second or more."""
    rows: list[float] = []
    while len(rows) < num_steps:
        rows += [float(len(rows) == 0 or 1 - rows[-1])] * int(hz * rng.uniform(1.0, 2.5))
    return np.array(rows[:num_steps])


def _scene(state: np.ndarray, scene: np.ndarray, shift: int) -> list[np.ndarray]:
    """A red cup, a blue plate and a gripper that moves with the state, on a wooden table."""
    frames = []
    for row in state:
        frame = scene.copy()
        y, x = ((np.tanh(row[:2] * 2) + 1) * 13).astype(int) + 1
        frame[y : y + 4, (x + shift) % 28 : (x + shift) % 28 + 4] = (40, 40, 45)
        frame[0, 0] = (int(abs(row[0]) * 1e4) % 200 + 20, 90, int(abs(row[1]) * 1e4) % 200 + 20)
        frames.append(frame)
    return frames


def _table(rng, seed_shift: int) -> np.ndarray:
    frame = np.empty((SIDE, SIDE, 3), np.uint8)
    frame[:] = (np.linspace(150, 200, SIDE)[:, None, None] * (1, 0.8, 0.55)).astype(np.uint8)
    y, x = rng.integers(3, 10, 2)
    frame[y : y + 8, x + seed_shift : x + 8 + seed_shift] = (190, 40, 35)
    frame[20:29, 6:18] = (60, 80, 150)
    return frame


JOINTS = tuple(f"joint_{i}" for i in range(6))
POSE = ("eef_x", "eef_y", "eef_z")
QUATERNION = ("eef_qx", "eef_qy", "eef_qz", "eef_qw")
CAMERAS = tuple(CameraSpec(name=name, height=SIDE, width=SIDE) for name in ("front", "wrist"))


def _conventions(kind: str, hz: float) -> Conventions:
    if kind == "delta_ee":
        names = ("dx", "dy", "dz", "droll", "dpitch", "dyaw", "gripper")
        state = StateSpec(
            names=(*POSE, *QUATERNION, "gripper_width"),
            units=("m",) * 3 + ("1",) * 4 + ("m",),
            frame="base",
        )
        references = ("delta",) * 6 + ("absolute",)
        low, high, units = (-1.0,) * 7, (1.0,) * 7, ("1",) * 7
        grippers = (GripperSpec(column="gripper", open_value=-1.0, closed_value=1.0),)
    else:
        names = (*JOINTS, "gripper")
        state = StateSpec(names=names, units=("rad",) * 6 + ("1",), frame="base")
        reference = "velocity" if kind == "joint_velocity" else "absolute"
        references = (reference,) * 6 + ("absolute",)
        low, high = (-np.inf,) * 7, (np.inf,) * 7
        units = ("rad/s" if kind == "joint_velocity" else "rad",) * 6 + ("1",)
        grippers = (GripperSpec(column="gripper", open_value=1.0, closed_value=0.0),)
    action = ActionSpec(
        names=names,
        units=units,
        references=references,
        low=low,
        high=high,
        frame="base",
        rotation="axis_angle" if kind == "delta_ee" else "none",
        grippers=grippers,
    )
    return Conventions(cameras=CAMERAS, state=state, action=action, control_hz=hz)


def _delta_ee(rng, steps, hz, alpha, delay, noise):
    target = _path(rng, steps + 1, hz, np.array([0.25, 0.25, 0.15]))
    # a displacement of 0.5 m/s is the largest there is; the hand's jitter is executed, too
    deltas = np.diff(target, axis=0) * hz / 0.5 + rng.normal(0, noise, (steps, 3))
    deltas = np.clip(deltas, -1, 1)
    asked = target[0] + np.cumsum(deltas, axis=0) * 0.5 / hz
    position = _follow(asked, alpha, delay)
    turns = _path(rng, steps + 1, hz, np.array([0.6, 0.6, 1.5]))
    turned = Rotation.from_euler("xyz", turns[:steps] + np.array([np.pi - 0.2, 0, 0])).as_quat()
    for i in range(1, steps):
        turned[i] *= 1 if turned[i] @ turned[i - 1] > 0 else -1
    turned *= 1 if turned[0, 0] > 0 else -1
    rotated = np.diff(turns, axis=0) * hz / 4
    grip = _grip(rng, steps, hz)
    width = 0.08 * _follow(grip[:, None], min(1.0, 6 / hz), 0)
    state = np.concatenate([position, turned, width], axis=1)
    actions = np.concatenate([deltas, rotated, 1 - 2 * grip[:, None]], axis=1)
    return state, np.clip(actions, -1, 1)


def _joints(kind, rng, steps, hz, alpha, delay, noise):
    target = _path(rng, steps + 1, hz, np.array([1.2, 0.9, 1.0, 1.5, 0.8, 2.0]))
    # a speed leads to the next target, a target to itself
    reached = _follow(target[kind == "joint_velocity" :][:steps], alpha, delay)
    grip = _follow(_grip(rng, steps, hz)[:, None], min(1.0, 8 / hz), 0)
    opening = 0.05 + 0.9 * _follow(grip, min(1.0, 8 / hz), 0)
    sag = rng.normal(0, 0.01, 6)
    measured = reached + sag + rng.normal(0, noise * 0.01, (steps, 6))
    if kind == "joint_velocity":
        commands = np.diff(target, axis=0) * hz
    else:
        commands = target[:steps] + rng.normal(0, noise * 0.01, (steps, 6))
    return np.concatenate([measured, opening], axis=1), np.concatenate([commands, grip], axis=1)


def record(
    kind: str = "delta_ee",
    hz: float = 20.0,
    episodes: int = 8,
    seconds: float = 8.0,
    alpha: float = 0.8,
    delay: int = 0,
    noise: float = 0.02,
    seed: int = 0,
) -> MemoryDataset:
    """Demonstrations of a robot: 'delta_ee', 'joints' (absolute targets) or 'joint_velocity'.

    Args:
        kind: what the actions are.
        hz: control rate.
        episodes: number of episodes, each of about `seconds`.
        seconds: their usual duration.
        alpha: share of the way to the target that the controller goes in a step.
        delay: steps until a command reaches the robot.
        noise: of the operator's hand and of the sensors.
        seed: of everything random.
    """
    made = []
    for index in range(episodes):
        rng = np.random.default_rng([seed, index])
        steps = int(seconds * hz * rng.uniform(0.7, 1.4))
        if kind == "delta_ee":
            state, actions = _delta_ee(rng, steps, hz, alpha, delay, noise)
        else:
            state, actions = _joints(kind, rng, steps, hz, alpha, delay, noise)
        scene = _table(rng, 0)
        frames = {
            "front": _scene(state, scene, 0),
            "wrist": _scene(state, np.roll(scene, 5, axis=1), 9),
        }
        clock = (np.arange(steps) + rng.normal(0, 0.05, steps)) / hz
        made.append(
            MemoryEpisode(f"arm.hdf5:data/demo_{index}", state, actions, frames, clock=clock)
        )
    return MemoryDataset(_conventions(kind, hz), made)


@pytest.fixture(scope="session")
def robot() -> Callable[..., MemoryDataset]:
    """`record`, remembering what it recorded: datasets are frozen."""
    made: dict[tuple, MemoryDataset] = {}

    def of(kind: str = "delta_ee", **settings) -> MemoryDataset:
        key = (kind, *sorted(settings.items()))
        if key not in made:
            made[key] = record(kind, **settings)
        return made[key]

    return of


@pytest.fixture
def rules() -> Callable[..., list[str]]:
    """The rules that a dataset breaks, each once, in the order found."""

    def of(dataset: MemoryDataset, **settings) -> list[str]:
        return list(dict.fromkeys(finding.rule for finding in validate(dataset, **settings)))

    return of
