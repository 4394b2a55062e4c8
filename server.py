"""Start a node: `python server.py` for the first, `python server.py <first-ip> [port] [local-port]` for any other."""

from node.cli.door import enter

if __name__ == "__main__":
    enter("node.cli.serve")
