"""New files out of robot data: repack, convert, split, merge, filter, relabel. Never in place."""
