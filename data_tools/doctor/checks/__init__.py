"""The checks behind `data_tools.doctor.examination`: each a function that yields what it found."""
