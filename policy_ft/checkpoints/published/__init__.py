"""What checkpoints of openpi and LeRobot say beside their weights, in our words."""
