"""What programs use: a client of a ring."""
