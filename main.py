"""Load and verify `input.txt`: `python main.py [input.txt] [--node HOST:PORT]`."""

from node.cli.door import enter

if __name__ == "__main__":
    enter("node.cli.load")
