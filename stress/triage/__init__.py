"""What becomes of races that are known."""
