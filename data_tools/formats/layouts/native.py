"""The layout we write: the robomimic skeleton with JPEG frames, and our declarations as attributes.

data                      attrs: schema_version, conventions (JSON), total (number of actions)
data/demo_N               attrs: num_samples, language_instruction, fps, source,
                          success (absent when nobody judged it), attributes (JSON)
data/demo_N/actions       float32[t, a]
data/demo_N/obs/state     float32[t, s]
data/demo_N/columns/<name> float32[t] or [t, n], of columns such as `weight`
data/demo_N/obs/<camera>_image
                          uint8[t, n], zero-padded JPEG, one frame a chunk;
                          attrs: encoding, color_order, orientation, quality
"""

from typing import Final

import h5py

from data_tools.formats.layouts.layout import Layout, Times
from data_tools.formats.layouts.places import EVERY_COLUMN, InAttribute
from data_tools.storage.hdf5.links import find_group

SCHEMA_VERSION: Final = 1

SCHEMA_ATTRIBUTE: Final = "schema_version"
CONVENTIONS_ATTRIBUTE: Final = "conventions"
TOTAL_ATTRIBUTE: Final = "total"
NUM_SAMPLES_ATTRIBUTE: Final = "num_samples"
INSTRUCTION_ATTRIBUTE: Final = "language_instruction"
FPS_ATTRIBUTE: Final = "fps"
SOURCE_ATTRIBUTE: Final = "source"
EXTRA_ATTRIBUTE: Final = "attributes"

ENCODING_ATTRIBUTE: Final = "encoding"
COLOR_ORDER_ATTRIBUTE: Final = "color_order"
ORIENTATION_ATTRIBUTE: Final = "orientation"
QUALITY_ATTRIBUTE: Final = "quality"

SUCCESS_ATTRIBUTE: Final = "success"
TIMES: Final = "times"
COLUMNS: Final = "columns"

NATIVE_LAYOUT: Final = Layout(
    name="native",
    instruction=(InAttribute(attribute=INSTRUCTION_ATTRIBUTE),),
    success=InAttribute(attribute=SUCCESS_ATTRIBUTE),
    columns={EVERY_COLUMN: f"{COLUMNS}/*"},
    times=Times(dataset=TIMES, unit_s=1.0),
)


def declared_root(file: h5py.File) -> h5py.Group | None:
    """The group of the episodes where it declares them in its own attributes, as what we write."""
    root = find_group(file, NATIVE_LAYOUT.root)
    return root if root is not None and CONVENTIONS_ATTRIBUTE in root.attrs else None
