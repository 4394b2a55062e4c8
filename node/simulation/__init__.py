"""Virtual time and a faulty network, drawn from one seed, for the very code that runs on real hosts."""
