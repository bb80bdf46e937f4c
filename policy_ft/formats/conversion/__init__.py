"""Any checkpoint to a directory of another format, and what that format cannot say."""
