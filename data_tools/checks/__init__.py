"""The checks behind `data_tools.doctor`: each a function that yields what it found."""
