"""The page about layouts: `python -m data_tools.formats.layouts.layouts_page FILE` writes it."""

import sys
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from data_tools.declaration import Declaration
from data_tools.formats.layouts.layout import Layout, Source, Times, Video
from data_tools.formats.layouts.preset import Preset, Shown, claim, presets
from data_tools.formats.layouts.undeclared import left_open
from data_tools.formats.lerobot.sources import Sources

_HEAD: Final = """\
# Layouts that are read as they are

Generated from the presets by
`python -m data_tools.formats.layouts.layouts_page docs/data-layouts.md`; do not edit.

`robot-data inspect PATH` says which of these a file is, and on what evidence. All of a layout's
marks must be there; a more special layout goes before a more general one, and a file with the marks
of two is refused until a sidecar names one. [LeRobot folders](#lerobot-folders) (v2.0, v2.1 and
v3.0) and our own files are read, too.

Structure cannot tell everything, and many recorders share one tree. What is listed under *to
declare* must be said by a person before such data is trained on, unless the file
[shows it](#what-a-file-may-show). `inspect` and `validate` work without that and give the lines to
write, filled in with what the layout's own project records, where that is known.

## Overriding

A YAML file beside the data, `conventions.yaml` for a folder and all below it or
`<file>.conventions.yaml` for one file, overrides any part of a layout; the rest stays. Of several
that speak for a file the nearest wins, key by key:

```yaml
layout: libero_no_noops
cameras:
  - {name: "*", orientation: rotated_180}
  - {name: eye_in_hand, orientation: flipped_vertical}
control_hz: 10
```

The camera name `*` speaks for every camera. One value stands for all columns of `units`,
`references`, `low` and `high`. Our own files declare themselves; a sidecar of one such file changes
what it says and leaves the rest, or replaces the whole declaration where it says everything.
A layout's own parts are overridden with `preset`; our own
files have the layout `native`. A plain dataset name is a source without options:

```yaml
layout:
  preset: robomimic
  instruction: {text: lift the cube}
  state:
    - robot0_joint_pos
    - {dataset: robot0_gripper_qpos, columns: [0], scale: [1000.0], names: [opening], units: [mm]}
```

The keys of `layout`:

"""
_FOOT: Final = """
Places of `instruction`, `success`, `attributes` and `rate` are `{text: ...}`, `{attribute: ...}`,
`{dataset: ...}`, `{file: ...}` for a JSON file beside the data, and `{path_pattern: ...}`; the
first three and the file may have a `key` into JSON. Frames may be pixels, channels last or first,
or JPEG or PNG in zero-padded rows, of variable length or as byte strings: the bytes tell.

"""

_LEROBOT: Final = """
## LeRobot folders

A folder with LeRobot's `meta/info.json` is read as it is, v2.0, v2.1 or v3.0, other projects'
flavours (openpi, GR00T, Unitree) among them. Only what is used has to be there: the columns of
state and actions, and the videos of the cameras that are read. Without `frame_index` the order of
the rows counts; without a list of tasks the index of the episodes says them. Names of columns are
taken from lists and mappings however they are nested; what cannot be read so is told, and the
columns are numbered.

What info.json does not tell is declared in `conventions.yaml` beside `meta`, with the keys of any
other sidecar (one value for all columns, `*` for every camera) and with these below `layout`:

```yaml
layout:
  images: {front: observation.images.front}
  clock: frame_index
action: {references: absolute, units: rad}
```

"""
_LEROBOT_CLOCK: Final = """
LeRobot finds the frame of a step by its time, frame_index / fps. Recorders that store other times
(of the day, from the second frame on, uneven) lead to other frames, mostly the next one, and
nothing looks wrong. So the time and the number of each step must lead to the same frame here;
where they do not, `robot-data validate`, `policy-ft check` and `policy-ft train` refuse the episode
(`wrong_clock`) until `clock` says which is right, or `robot-data validate --fix OUT.hdf5` writes
the frames by number. Where a video has another number of frames than its episode has steps
(`frame_count`), only times can tell.
"""
_SHOWN: Final = """
## What a file may show

A layout states what every file with its marks bears out. What only some of them hold is taken where
they show it, and then not asked for.

| layout | where the file has | it tells |
| --- | --- | --- |
"""

_PARTS: Final[dict[str, type[Declaration]]] = {
    "a source in `actions` and `state`": Source,
    "a video in `images`": Video,
    "`times`": Times,
}


def page() -> str:
    """The page about all layouts, in Markdown."""
    known = presets().values()
    readable = [preset for preset in known if not preset.refusal]
    refused = [preset for preset in known if preset.refusal]
    return (
        _HEAD
        + "".join(map(_key, Layout.model_fields.items()))
        + "".join(map(_keys, _PARTS.items()))
        + _FOOT
        + "## Layouts\n\n| layout | what | from | Hz | frames | rows | language | to declare |\n"
        + "| --- | --- | --- | --- | --- | --- | --- | --- |\n"
        + "".join(map(_row, readable))
        + _SHOWN
        + "".join(map(_shown, readable))
        + _LEROBOT
        + "".join(map(_key, Sources.model_fields.items()))
        + _LEROBOT_CLOCK.rstrip("\n")
        + "\n\n## Recognized and refused\n\nThey hold no observations.\n\n"
        + "| layout | what | remedy |\n| --- | --- | --- |\n"
        + "".join(f"| {p.name} | {p.title} | {p.refusal} |\n" for p in refused)
        + "\n## Marks\n\n| layout | marks | goes before |\n| --- | --- | --- |\n"
        + "".join(map(_marks, known))
    )


def _keys(part: tuple[str, type[Declaration]]) -> str:
    title, model = part
    return f"\nThe keys of {title}:\n\n" + "".join(map(_key, model.model_fields.items()))


def _key(named: tuple[str, FieldInfo]) -> str:
    name, field = named
    needed = " Needed." if field.is_required() else ""
    return f"* `{name}`: {field.description}{needed}\n"


def _row(preset: Preset) -> str:
    layout, said = preset.layout, preset.conventions
    camera = said.camera
    frames = f"{camera.orientation}, {camera.color_order}".replace("unknown", "to declare")
    frames = frames.replace("to declare, to declare", "to declare") if layout.images else "none"
    hz = "to declare" if said.control_hz is None else f"{said.control_hz:g}"
    if layout.rate is not None:
        hz = f"the file's, else {hz}"
    language = ", ".join(_place(place.model_dump()) for place in layout.instruction)
    if layout.instruction == Layout().instruction:
        language = "to declare"
    left = sorted(left_open(preset, said))
    declared = [f"`{place}`" for place in left if layout.images or "cameras" not in place]
    cells = (
        preset.name,
        preset.title,
        preset.project,
        hz,
        frames,
        _rows(preset),
        language,
        ", ".join(declared),
    )
    return f"| {' | '.join(cells)} |\n"


def _shown(preset: Preset) -> str:
    return "".join(
        f"| {preset.name} | {'; '.join(map(claim, shown.evidence))} | {_told(shown)} |\n"
        for shown in preset.shown
    )


def _told(shown: Shown) -> str:
    said = shown.conventions
    actions = [
        f"actions of {len(action.names)} columns: {', '.join(action.names)}"
        for action in said.action
    ]
    facts = said.camera.model_dump(exclude_unset=True) | said.model_dump(
        exclude_unset=True, exclude={"camera", "action"}
    )
    return "; ".join((*(f"{name} {value}" for name, value in facts.items()), *actions))


def _rows(preset: Preset) -> str:
    layout = preset.layout
    rules = {
        "one_more": "last observation dropped",
        "either": "T or T + 1 observations",
        "same": "",
    }[layout.observation_rows]
    shift = f"action of row t + {layout.action_shift}" if layout.action_shift else ""
    skip = f"without `{layout.skip}`" if layout.skip else ""
    return ", ".join(filter(None, (rules, shift, skip))) or "o_t, a_t"


def _place(place: dict[str, object]) -> str:
    names = {"file": "JSON file", "path_pattern": "path"}
    kind = next(iter(place))
    if kind == "path_pattern":
        return "path"
    key = f", {place['key']}" if place.get("key") else ""
    return f"{names.get(kind, kind)} `{place[kind]}{key}`"


def _marks(preset: Preset) -> str:
    marks = "; ".join(claim(test) for test in preset.evidence).replace("|", "\\|")
    return f"| {preset.name} | {marks} | {', '.join(preset.special_case_of)} |\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
