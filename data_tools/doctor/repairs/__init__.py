"""What `robot-data validate --fix` does: the safe repairs, into a new file."""
