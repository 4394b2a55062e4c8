"""A whole node: how it comes into its ring, what it is made of, how it leaves, and repair by force."""
