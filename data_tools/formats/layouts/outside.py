"""What a sidecar may lead to: it comes with the data, so it opens nothing that lies elsewhere."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_tools.errors import describe, raise_faults
from data_tools.formats.layouts.layout import Layout
from data_tools.formats.layouts.sidecar import Sidecar, layout_of
from data_tools.storage.hdf5.links import PERMISSION


@dataclass(frozen=True)
class Reach:
    """How far the layout of one file may lead.

    Attributes:
        path: the data file.
        top: the folder that was opened; the file's own where a file was.
        allow_external_links: whether the caller lets data lie outside the file and that folder.
    """

    path: Path
    top: Path
    allow_external_links: bool = False

    def layout(self, sidecar: Sidecar | None, base: Layout | None) -> Layout:
        """The layout a sidecar declares, or else the base, with the caller's permission in it.

        Raises:
            UserError: the sidecar asks for what the caller has not allowed, or a key or a value of
                it is wrong; every fault is named.
        """
        layout = base if sidecar is None else layout_of(sidecar, base)
        assert layout is not None
        if sidecar is not None and not self.allow_external_links:
            raise_faults(self._faults(sidecar, layout, base))
        return layout.model_copy(update={"allow_external_links": self.allow_external_links})

    def _faults(self, sidecar: Sidecar, layout: Layout, base: Layout | None) -> Iterator[str]:
        if layout.allow_external_links:
            key = "allow_external_links"
            where = f"{sidecar.file_of(('layout', key))}, layout.{key}"
            expected = "false, for what comes with the data cannot allow itself other files"
            yield describe(where, "true", expected, f"Remove it, or, {PERMISSION}")
        # our own layouts read siblings, as their projects lay them out, in any folder
        known = () if base is None else base.file_patterns
        here, top = self.path.resolve().parent, self.top.resolve()
        for pattern in layout.file_patterns:
            folder = here
            for _ in range(pattern.count("../")):
                folder = folder.parent
            if pattern not in known and folder != here and top not in (folder, *folder.parents):
                remedy = f"Open the folder that holds both, or, {PERMISSION}"
                expected = f"files in the folder that is opened, {self.top}"
                where = f"{sidecar.file_of(('layout',))}, layout"
                yield describe(where, f"{pattern!r}", expected, remedy)
