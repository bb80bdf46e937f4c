"""How robot data lies on disk: a preset a layout (YAML), evidence to tell them apart, one walker.

The walker turns any of them into `EpisodeRecord`s. The reader knows only records, so a new layout
is a new file in `presets/`.
"""
