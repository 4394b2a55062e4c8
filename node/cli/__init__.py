"""What people type: the doors of the project and the `ring` command."""
