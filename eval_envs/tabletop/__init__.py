"""The embedded default environment: coloured blocks, a zone and a Cartesian gripper on a table."""
