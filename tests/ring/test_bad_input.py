"""What goes wrong by mistake or on purpose: one clear answer, and nothing of it disturbs the others."""

from __future__ import annotations

import os
import resource
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rpyc
from rpyc.core import consts

from node.settings import Settings
from tests.ports import free_port
from tests.ring.nodes import ROOT, NodeProcess, RingOfProcesses, eventually

MIB = 1024 * 1024


def typed(*words: str | int, cwd: Path = ROOT, within: float = 30) -> subprocess.CompletedProcess[str]:
    """A command as a person types it, to its end."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=within, cwd=cwd, check=False)


def assert_one_clear_line(done: subprocess.CompletedProcess[str], code: int, *mentioned: str) -> None:
    """The right exit code, one line on standard error that names what was wrong, no traceback, nothing pretended."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    for word in mentioned:
        assert word in done.stderr


def resident(node: NodeProcess) -> int:
    """The memory a node's process has now, in bytes."""
    assert node.process is not None
    return int(Path(f"/proc/{node.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def node(ring: RingOfProcesses) -> Iterator[NodeProcess]:
    """One node; whatever a test does to it, a plain client is served before and after."""
    one = ring.node()
    with one.connection() as root:
        root.put("before", 1)
    yield one
    with one.connection() as root:
        assert root.get("before") == 1
        assert root.put("after", 2) > (0, 0)


# -- starting ----------------------------------------------------------------------------------------------------


def test_local_port_taken(node: NodeProcess, tmp_path: Path) -> None:
    done = typed("server.py", "--port", node.port, "--data", tmp_path / "other")
    assert_one_clear_line(done, 2, str(node.port), "taken")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["127.0.0.1", "1"], 1),
        (["127.0.0.1", "1", "--listen", "203.0.113.7", "--insecure"], 2),
        (["--siblings"], 2),
        (["--siblings", "--secure"], 2),
        (["--settings", "wrong.toml"], 2),
    ],
)
def test_a_failed_start_leaves_nothing_that_it_made(tmp_path: Path, words: list[str], code: int) -> None:
    (tmp_path / "wrong.toml").write_text("[log]\nlevel = 3")
    there = tmp_path / "there"
    there.mkdir()
    (there / "settings.toml").write_text("")
    before = set(tmp_path.rglob("*"))
    for data in (tmp_path / "new" / "data", there):
        assert_one_clear_line(typed(ROOT / "server.py", *words, "--port", 0, "--data", data, cwd=tmp_path), code)
    assert set(tmp_path.rglob("*")) == before


def test_first_node_unreachable(tmp_path: Path) -> None:
    port = free_port()
    done = typed("server.py", "127.0.0.1", port, "0", "--data", tmp_path / "data")
    assert_one_clear_line(done, 1, f"127.0.0.1:{port}")


def test_first_address_is_not_a_ring(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nServer: not a ring\r\n\r\n")
                connection.close()

        threading.Thread(target=greet, daemon=True).start()
        done = typed("server.py", "127.0.0.1", server.getsockname()[1], "0", "--data", tmp_path / "data")
    assert_one_clear_line(done, 1, "not a node of a ring")


def test_first_address_is_another_rpyc_service(tmp_path: Path) -> None:
    server = rpyc.ThreadedServer(rpyc.Service, hostname="127.0.0.1", port=0)
    threading.Thread(target=server.start, daemon=True).start()
    try:
        done = typed("server.py", "127.0.0.1", server.port, "0", "--data", tmp_path / "data")
    finally:
        server.close()
    assert_one_clear_line(done, 1, str(server.port))


def test_own_address_as_first(tmp_path: Path) -> None:
    port = free_port()
    done = typed("server.py", "127.0.0.1", port, port, "--data", tmp_path / "data")
    assert_one_clear_line(done, 2, str(port), "itself")


@pytest.mark.parametrize(
    ("words", "mentioned"),
    [
        (["127.0.0.1", "x"], "'x'"),
        (["127.0.0.1", "70000"], "70000"),
        (["127.0.0.1", "0"], "0"),
        (["127.0.0.1", "1", "-5"], "-5"),
        (["127.0.0.1", "1", "2", "3"], "3"),
        (["127.0.0.1", "1", "2", "--port", "3"], "two local ports"),
        (["--port", "1e3"], "1e3"),
        (["--members", "0"], "0"),
        (["--members", "many"], "many"),
        (["--id", "abc"], "40 hex digits"),
        (["--profile", "moon"], "moon"),
        (["--listen", "0.0.0.0"], "0.0.0.0"),
        (["--listen", "203.0.113.7"], "203.0.113.7"),
        (["--listen", "203.0.113.7", "--insecure"], "203.0.113.7"),
        (["--port", "0"], "--data"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_malformed_words(words: list[str], mentioned: str, tmp_path: Path) -> None:
    data = [] if words == ["--port", "0"] else ["--data", str(tmp_path / "data")]
    done = typed("server.py", *words, *data)
    assert_one_clear_line(done, 2, mentioned)


def test_a_second_node_with_the_same_id(node: NodeProcess, tmp_path: Path) -> None:
    done = typed("server.py", node.host, node.port, "0", "--id", node.id, "--data", tmp_path / "twin")
    assert_one_clear_line(done, 1, node.id, "in use")
    assert not (tmp_path / "twin").exists()
    assert node.members() == (node.id,)


def test_data_directory_in_use(node: NodeProcess) -> None:
    assert node.process is not None
    done = typed("server.py", "--port", free_port(), "--data", node.directory)
    assert_one_clear_line(done, 2, str(node.directory), str(node.process.pid))


def test_data_directory_of_another_ring(ring: RingOfProcesses) -> None:
    one, other = ring.node(), ring.node()
    assert other.terminate() == 0
    done = typed("server.py", one.host, one.port, "0", "--data", other.directory)
    assert_one_clear_line(done, 1, "another ring")
    assert one.members() == (one.id,)


def test_data_directory_that_is_somebody_elses(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("important")
    done = typed("server.py", "--port", free_port(), "--data", tmp_path)
    assert_one_clear_line(done, 2, "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "important"


def test_id_that_is_not_this_directorys(ring: RingOfProcesses) -> None:
    node = ring.node()
    assert node.terminate() == 0
    done = typed("server.py", "--port", free_port(), "--data", node.directory, "--id", "0" * 40)
    assert_one_clear_line(done, 2, node.id)


def test_a_node_that_waits_for_its_ring_does_not_begin_another_and_can_be_ended(ring: RingOfProcesses) -> None:
    one, other = ring.of(2)
    eventually(lambda: len(one.members()) == 2)
    threading.Event().wait(1.0)  # both have written down whom they know
    one.kill()
    other.kill()
    other.first = None
    other.start(wait=False)
    with pytest.raises(AssertionError, match="no ready line"):
        other.ready(within=4)
    assert other.terminate() == 0
    other.start(wait=False)
    one.start(wait=False)
    one.ready()
    other.ready()
    ring.agreed(2)


def test_the_last_of_its_ring_says_so(ring: RingOfProcesses) -> None:
    one, other = ring.of(2)
    threading.Event().wait(1.0)
    one.kill()
    other.kill()
    other.first = None
    other.words.append("--alone")
    other.start()
    assert other.members() == (other.id,)


# -- values ------------------------------------------------------------------------------------------------------


def test_a_netref_is_refused_with_what_to_send(node: NodeProcess) -> None:
    with node.connection() as root:
        for value in ([1], {"a": 1}, object(), {1}, (1, [2]), bytearray(b"x"), print):
            with pytest.raises(Exception, match="send bytes, str, int") as refusal:
                root.put("key", value)
            assert "node.errors" in type(refusal.value).__module__ + str(type(refusal.value))
        with pytest.raises(Exception, match="send"):
            root.get(["key"])
        assert root.get("key") is None


def test_keys_and_values_over_the_limit(node: NodeProcess) -> None:
    settings = Settings()
    with node.connection() as root:
        with pytest.raises(Exception, match=str(settings.max_key)):
            root.put("k" * (settings.max_key + 1), 1)
        for size in (settings.max_value + 1, settings.max_frame + 1, 40 * MIB):
            with pytest.raises(Exception, match="send"):
                root.put("big", os.urandom(size))
        largest = os.urandom(settings.max_value - 16)
        root.put("big", largest)
        assert root.get("big") == largest


def test_values_keep_their_types(node: NodeProcess) -> None:
    values: list[Any] = [
        b"bytes",
        "text",
        "grün 東京",
        7,
        -1,
        2**200,
        -(2**70),
        1.5,
        True,
        False,
        None,
        (1, "a", (b"x",)),
        "",
    ]
    with node.connection() as root:
        for n, value in enumerate(values):
            root.put(n, value)
        for n, value in enumerate(values):
            back = root.get(n)
            assert back == value and type(back) is type(value)
        root.put("1", "one key")
        assert root.get(1) == root.get(b"1") == "one key"


@pytest.mark.parametrize(
    ("number", "attribute"),
    [(-1, "node_id"), (1, "node_id"), ("0", "node_id"), (0, "password"), (0, 5), (None, "keys"), (0, "__class__")],
)
def test_nodes_and_attributes_there_are_not(node: NodeProcess, number: Any, attribute: Any) -> None:
    with node.connection() as root, pytest.raises(Exception, match="no node|no attribute"):
        root.get_node(number, attribute)


@pytest.mark.parametrize(("ip", "port"), [("127.0.0.1", 1), ("127.0.0.1", "x"), (5, 5), ("", 1), ("127.0.0.1", 70000)])
def test_connect_to_nothing(node: NodeProcess, ip: Any, port: Any) -> None:
    with node.connection() as root, pytest.raises(Exception, match=r"node\.errors"):
        try:
            root.connect(ip, port)
        except Exception as error:
            raise RuntimeError(f"{type(error).__module__}.{type(error).__name__}") from error


# -- the port ----------------------------------------------------------------------------------------------------


def send(node: NodeProcess, content: bytes) -> bytes:
    """Send raw bytes; what comes back until the other side closes or is silent for a moment."""
    with socket.create_connection((node.host, node.port), timeout=3) as sock:
        received = b""
        try:
            sock.sendall(content)
            while data := sock.recv(65536):
                received += data
        except OSError:
            return received
        return received


def test_random_bytes_end_only_their_connection(node: NodeProcess) -> None:
    with node.connection() as root:
        for n in range(20):
            send(node, bytes([0, 0, 0, 9, 0]) + os.urandom(64 + n))
            assert root.get("before") == 1


def test_a_header_of_four_gigabytes(node: NodeProcess) -> None:
    before = resident(node)
    with socket.create_connection((node.host, node.port), timeout=5) as sock:
        sock.sendall(struct.pack("!LB", 0xFFFFFFFF, 0) + b"x" * MIB)
        with pytest.raises(OSError):
            while sock.recv(1) == b"":
                sock.sendall(b"x")
    assert resident(node) - before < 40 * MIB


def test_a_zlib_bomb(node: NodeProcess) -> None:
    bomb = zlib.compress(bytes(800 * MIB), 9)
    before = resident(node)
    send(node, struct.pack("!LB", len(bomb), 1) + bomb + b"\n")
    assert resident(node) - before < 60 * MIB


def test_safe_dunders_on_plain_values_are_not_to_be_had(node: NodeProcess) -> None:
    connection = rpyc.connect(node.host, node.port, config={"sync_request_timeout": 5})
    for target, name, argument in ((3, "__pow__", 30_000_000), ("%300000000d", "__mod__", 1), (b"x", "__mul__", 10**9)):
        with pytest.raises(Exception, match="exposed|only|root"):
            connection.sync_request(consts.HANDLE_CALLATTR, target, name, (argument,), ())
    root = connection.root
    for handler in (consts.HANDLE_DIR, consts.HANDLE_REPR, consts.HANDLE_STR, consts.HANDLE_HASH, consts.HANDLE_PICKLE):
        with pytest.raises(Exception, match="exposed|only|open|refused"):
            connection.sync_request(handler, root)
    for name in ("__class__", "__init__", "_node", "exposed_call.__globals__", "__dict__"):
        with pytest.raises(Exception, match="exposed"):
            connection.sync_request(consts.HANDLE_GETATTR, root, name)
    connection.close()


def test_a_thousand_idle_connections(node: NodeProcess) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    before = resident(node)
    idle = [socket.create_connection((node.host, node.port)) for _ in range(1000)]
    try:
        with node.connection() as root:
            for n in range(100):
                root.put(n, n)
            assert root.get(99) == 99
        assert resident(node) - before < 60 * MIB
    finally:
        for sock in idle:
            sock.close()


def test_a_node_allows_itself_the_descriptors_it_needs(ring: RingOfProcesses) -> None:
    node = ring.node(start=False)
    node.prefix = ["sh", "-c", 'ulimit -S -n 256 && exec "$@"', "sh"]
    node.start()
    assert node.process is not None
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)[0] >= min(4096, hard)


def test_running_out_of_file_descriptors(ring: RingOfProcesses) -> None:
    node = ring.node(start=False)
    node.prefix = ["sh", "-c", 'ulimit -n 200 && exec "$@"', "sh"]
    node.start()
    with node.connection() as root:
        root.put("key", 1)
        flood = []
        try:
            for _ in range(400):
                flood.append(socket.create_connection((node.host, node.port), timeout=2))
            assert root.get("key") == 1, "who was connected before is served"
        finally:
            for sock in flood:
                sock.close()

    def served() -> bool:
        with node.connection() as root:
            return bool(root.get("key") == 1)

    assert eventually(served, what="new connections once descriptors are free again")


def test_half_a_frame_holds_nobody_up(node: NodeProcess) -> None:
    halves = []
    for _ in range(20):
        sock = socket.create_connection((node.host, node.port))
        sock.sendall(struct.pack("!LB", 1000, 0) + b"half")
        halves.append(sock)
    with node.connection() as root:
        assert root.get("before") == 1
    for sock in halves:
        sock.close()


def test_an_idle_node_is_small(node: NodeProcess) -> None:
    assert resident(node) < 60 * MIB


# -- main.py -----------------------------------------------------------------------------------------------------


def test_malformed_lines_are_named_and_the_rest_is_done(ring: RingOfProcesses, tmp_path: Path) -> None:
    node = ring.of(2)[0]
    script = tmp_path / "lines.txt"
    script.write_bytes(
        b"put a 1\nfrob x\nput b\nget 'open quote\nput c 3 4\n\xff\xfe\n"
        b"get a\n# fine\n\ndelete a\nget a\nput d 4\r\nget d\n"
    )
    done = typed("main.py", script, "--node", f"{node.host}:{node.port}", within=60)
    assert done.returncode == 1
    assert [line.split(":")[1] for line in done.stderr.splitlines()] == ["2", "3", "4", "5", "6"]
    assert all(line.startswith(f"{script}:") for line in done.stderr.splitlines())
    assert "2 put, 3 got, 1 deleted; 2 keys verified" in done.stdout and "0 wrong, 5 malformed" in done.stdout


def test_what_is_not_as_the_file_says_is_named(ring: RingOfProcesses, tmp_path: Path) -> None:
    node = ring.of(2)[0]
    script = tmp_path / "lines.txt"
    script.write_text("put a 1\nget a\n" * 200)
    stop = threading.Event()

    def meddle() -> None:
        with node.connection() as root:
            while not stop.is_set():
                root.put("a", "meddled")

    meddler = threading.Thread(target=meddle)
    meddler.start()
    try:
        done = typed("main.py", script, "--node", f"{node.host}:{node.port}", within=60)
    finally:
        stop.set()
        meddler.join()
    assert done.returncode == 1
    assert "'meddled' instead of '1'" in done.stderr


def test_missing_input_file() -> None:
    assert_one_clear_line(typed("main.py", "/no/such/file.txt"), 2, "/no/such/file.txt")


def test_main_with_a_node_that_is_not_there() -> None:
    port = free_port()
    done = typed("main.py", "--node", f"127.0.0.1:{port}", within=60)
    assert_one_clear_line(done, 1, str(port))


@pytest.mark.parametrize("address", ["127.0.0.1:x", ":1", "127.0.0.1:0"])
def test_main_with_an_address_that_is_none(address: str) -> None:
    assert_one_clear_line(typed("main.py", "--node", address), 2, address.rpartition(":")[2])


def test_main_on_a_ring_that_is_there_is_verified_through_another_node(ring: RingOfProcesses) -> None:
    nodes = ring.of(3)
    done = typed("main.py", "--node", f"{nodes[0].host}:{nodes[0].port}", within=60)
    assert done.returncode == 0, done.stderr
    assert "0 wrong, 0 malformed" in done.stdout
    verified = done.stdout.split("verified through ")[1].split(";")[0]
    assert verified in {f"{node.host}:{node.port}" for node in nodes[1:]}
