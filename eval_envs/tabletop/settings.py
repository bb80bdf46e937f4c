"""What a maker of `Tabletop-v0` chooses, and every fault in it."""

from collections.abc import Iterator
from dataclasses import dataclass

from data_tools.errors import describe, nearest
from eval_envs.tabletop.layout import COLORS, MAX_BLOCKS, SHAPES
from eval_envs.tabletop.scene import CAMERAS
from eval_envs.tabletop.tasks import FAMILIES

SMALLEST_IMAGE, LARGEST_IMAGE = 8, 96


@dataclass(frozen=True)
class Settings:
    """The arguments of `TabletopEnv`, where they are described."""

    families: tuple[str, ...]
    image_size: tuple[int, int]
    cameras: tuple[str, ...]
    colors: tuple[str, ...]
    scene_colors: tuple[str, ...]
    shapes: tuple[str, ...]
    num_blocks: int
    terminate_on_success: bool
    instruction: str | None
    render_mode: str | None

    def faults(self) -> list[str]:
        """Everything that cannot be honoured, each with what to do; empty when all is well."""
        return [*self._choice_faults(), *self._count_faults(), *self._size_faults()]

    def _choice_faults(self) -> Iterator[str]:
        yield from _choice_faults("task", self.families, tuple(FAMILIES))
        yield from _choice_faults("cameras", self.cameras, CAMERAS)
        yield from _choice_faults("colors", self.colors, COLORS)
        yield from _choice_faults("scene_colors", self.scene_colors, COLORS)
        yield from _choice_faults("shapes", self.shapes, SHAPES)
        if self.render_mode is not None:
            yield from _choice_faults("render_mode", (self.render_mode,), ("rgb_array",))

    def _count_faults(self) -> Iterator[str]:
        if not 1 <= self.num_blocks <= MAX_BLOCKS:
            yield describe(
                "num_blocks",
                repr(self.num_blocks),
                f"1 to {MAX_BLOCKS}",
                "Choose a number in between.",
            )
        stacking = any(FAMILIES[name].needs_base for name in self.families if name in FAMILIES)
        if stacking and self.num_blocks == 1:
            yield describe(
                "num_blocks", "1", "at least 2 for a task with two blocks", "Raise num_blocks."
            )
        needed = self.num_blocks - 1
        fewest = min((len(set(self.scene_colors) - {color}) for color in self.colors), default=0)
        if fewest < needed:
            expected = (
                f"at least {needed} besides the commanded colour, as every block has another one"
            )
            remedy = "Add colours, or lower num_blocks."
            yield describe("scene_colors", repr(list(self.scene_colors)), expected, remedy)

    def _size_faults(self) -> Iterator[str]:
        if any(not SMALLEST_IMAGE <= side <= LARGEST_IMAGE for side in self.image_size):
            expected = f"{SMALLEST_IMAGE} to {LARGEST_IMAGE} pixels a side"
            yield describe(
                "image_size", repr(self.image_size), expected, "Choose a size in between."
            )


def _choice_faults(where: str, found: tuple[str, ...], legal: tuple[str, ...]) -> Iterator[str]:
    for name in found:
        if name not in legal:
            near = nearest(name, legal)
            yield describe(
                where,
                repr(name),
                f"one of {list(legal)}",
                f"Choose one of them{f'; {near}' if near else '.'}",
            )
    if not found or len(set(found)) < len(found):
        yield describe(where, repr(list(found)), "one or more different names", "Name each once.")
