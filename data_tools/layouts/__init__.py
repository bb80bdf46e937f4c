"""How robot data lies on disk: a declarative `Layout` a kind of file, and a walker a family.

A new kind of file of the `data/demo_N` family is one more `Layout` value; a new family is one more
walker that yields `EpisodeRecord`s. The reader knows only records, so it never changes.
"""
