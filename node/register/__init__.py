"""One compare-and-set register on a few nodes, its keepers, and the leases they grant."""
