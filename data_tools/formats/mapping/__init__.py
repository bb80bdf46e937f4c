"""One dataset as another declares its cameras and columns."""
