"""What is measured: `python -m bench` or `make bench`."""
