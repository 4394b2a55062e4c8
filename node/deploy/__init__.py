"""Putting a ring on many hosts over ssh: what the tasks of the fabfile do. Knows nothing of the rest but the ground."""
