"""LeRobot's checkpoint directories, of all versions."""
