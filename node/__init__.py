"""rpychord: a Chord ring of remote objects on RPyC."""

__version__ = "0.1.0"
