"""The doctor: checks, repairs, planted faults and the report."""
