"""How predicted action chunks become control steps."""
