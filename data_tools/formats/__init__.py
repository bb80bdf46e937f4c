"""Which file holds what: layouts, walks over files, LeRobot folders, mappings, and the reader."""
