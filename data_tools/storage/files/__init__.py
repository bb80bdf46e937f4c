"""Files where they are: found by path, glob or URL, opened, and made whole or not at all."""
