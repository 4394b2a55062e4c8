"""The disk: one ordered embedded store per node."""
