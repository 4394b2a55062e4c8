"""Files of rows into a ring, and a ring into a file: `ring load` and `ring dump`."""
