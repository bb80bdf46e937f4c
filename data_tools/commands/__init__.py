"""The commands of `robot-data`, by what they do; each only parses, calls and prints."""
