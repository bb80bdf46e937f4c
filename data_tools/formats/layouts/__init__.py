"""How robot data lies on disk: a preset a layout (YAML), and the evidence that tells them apart.

A walk by the layout (`data_tools.formats.walks`) turns any of them into `EpisodeRecord`s. The
reader knows only records, so a new layout is a new file in `presets/`.
"""
