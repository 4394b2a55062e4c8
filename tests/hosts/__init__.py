"""Hosts on one machine, each with its own network, processes, file system and sshd: see `machines`."""
