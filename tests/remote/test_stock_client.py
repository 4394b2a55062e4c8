"""Claims of what a plain RPyC client gets from our listener, and of what it does not get."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import rpyc
from rpyc.core import consts

from node.remote.listener import Listener
from tests.remote.ends import HOST, SETTINGS, Root, run

pytestmark = pytest.mark.usefixtures("loops")
TIMEOUT = {"sync_request_timeout": 10}


def served(client: Callable[[Any], Any], root: Root | None = None) -> Any:
    """Run a client in a thread, with a stock connection to a root of ours."""

    async def serve() -> Any:
        async with Listener(SETTINGS, HOST, 0, root or Root()) as listener:

            def work() -> Any:
                connection = rpyc.connect(HOST, listener.port, config=TIMEOUT)
                try:
                    return client(connection)
                finally:
                    connection.close()

            return await asyncio.to_thread(work)

    return run(serve())


def test_methods_are_called_by_name_with_words_and_by_either_name() -> None:
    def client(connection: Any) -> None:
        root = connection.root
        assert root.add(1) == 3
        assert root.add(1, b=5) == 6
        assert root.exposed_add("a", "b") == "ab"
        assert root.echo((b"x", "y", 1, 2.5, True, None, (1, (2,)))) == (b"x", "y", 1, 2.5, True, None, (1, (2,)))
        assert root.future(5) == 5
        assert root.echo(b"x" * 1_000_000) == b"x" * 1_000_000

    served(client)


def test_large_compressed_requests_are_read() -> None:
    assert served(lambda connection: connection.root.echo(b"x" * 100_000)) == b"x" * 100_000


def test_a_bound_method_outlives_many_others() -> None:
    def client(connection: Any) -> None:
        add = connection.root.add
        for i in range(300):
            assert connection.root.add(i, 1) == i + 1
        assert add(1, 2) == 3

    served(client)


def test_answers_come_out_of_order() -> None:
    def client(connection: Any) -> None:
        wait, opener = rpyc.async_(connection.root.wait), rpyc.async_(connection.root.open)
        first = [wait(i) for i in range(20)]
        assert connection.root.add(1, 1) == 2
        assert not any(result.ready for result in first)
        opener().wait()
        for i, result in enumerate(first):
            result.wait()
            assert result.value == i

    served(client)


def test_many_threads_with_connections_of_their_own() -> None:
    def client(connection: Any) -> None:
        port = connection._channel.stream.sock.getpeername()[1]
        failures: list[Any] = []

        def work(number: int) -> None:
            try:
                own = rpyc.connect(HOST, port, config=TIMEOUT)
                for i in range(50):
                    assert own.root.echo((number, i)) == (number, i)
                own.close()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []

    served(client)


def test_errors_of_ours_keep_their_name_and_arguments_and_show_nothing_else() -> None:
    def client(connection: Any) -> None:
        with pytest.raises(Exception, match="send something else") as refused:
            connection.root.refuse()
        assert type(refused.value).__mro__[1].__name__ == "node.errors.BadValue"
        assert refused.value.args == ("send something else", 7)
        assert "ends.py" not in str(refused.value)

    served(client)


def test_unexpected_errors_are_told_without_their_details() -> None:
    def client(connection: Any) -> None:
        for method in ("fail", "timeout", "cancelled"):
            with pytest.raises(Exception, match="internal error|stopped") as failed:
                getattr(connection.root, method)()
            assert not isinstance(failed.value, (TimeoutError, ZeroDivisionError))
            assert "secret" not in str(failed.value)
            assert "ends.py" not in str(failed.value)
        assert connection.root.add(1) == 3

    served(client)


def test_wrong_arguments_are_a_type_error() -> None:
    def client(connection: Any) -> None:
        for args, words in (((), {}), ((1, 2, 3), {}), ((1,), {"c": 1})):
            with pytest.raises(TypeError, match="exposed_add"):
                connection.root.add(*args, **words)
        assert connection.root.add(1) == 3

    served(client)


@pytest.mark.parametrize("what", ["surrogate", "huge", "list", "object", "inside"])
def test_a_result_that_cannot_be_sent_is_an_error_and_the_connection_lives(what: str) -> None:
    def client(connection: Any) -> None:
        with pytest.raises(Exception, match="cannot be sent"):
            connection.root.give(what)
        assert connection.root.add(1) == 3

    served(client)


@pytest.mark.parametrize(
    "arguments",
    [
        ([1],),
        ({"a": 1},),
        (object(),),
        ((1, (2, [3])),),
        (1, 2, bytearray(3)),
        (lambda: 1,),
        (set(),),
        (Exception("x"),),
    ],
)
def test_references_are_refused_and_never_followed(arguments: tuple[Any, ...]) -> None:
    def client(connection: Any) -> None:
        root = connection.root
        served_before = connection._local_objects._dict.copy()
        with pytest.raises(Exception, match=r"send bytes, str, int, float, bool, None or a tuple of these.*node\.Ring"):
            root.types(*arguments)
        with pytest.raises(Exception, match="send bytes, str, int"):
            root.types(word=arguments[-1])
        requests = []
        connection._dispatch_request = lambda seq, raw: requests.append(raw)
        assert root.add(1) == 3
        assert requests == [], "the node asked us about our object"
        assert served_before == {}

    served(client)


@pytest.mark.parametrize("value", [slice(1, 2), frozenset([1]), 1j, ..., NotImplemented])
def test_values_that_are_not_plain_are_refused(value: Any) -> None:
    def client(connection: Any) -> None:
        with pytest.raises(Exception, match="send bytes, str, int"):
            connection.root.types(value)
        assert connection.root.types(b"", "", 1, 1.0, True, None, (1,)) == (
            "bytes", "str", "int", "float", "bool", "NoneType", "tuple",
        )  # fmt: skip

    served(client)


def test_references_to_ours_are_no_arguments() -> None:
    def client(connection: Any) -> None:
        for argument in (connection.root, connection.root.add, (1, connection.root.add)):
            with pytest.raises(Exception, match="reference"):
                connection.root.types(argument)

    served(client)


@pytest.mark.parametrize(
    "name",
    ["hidden", "gate", "__class__", "__init__", "__dict__", "exposed_", "add.__globals__", "_x", "exposed_hidden"],
)
def test_what_is_not_exposed_is_not_there(name: str) -> None:
    def client(connection: Any) -> None:
        root = connection.root
        for handler, args in ((consts.HANDLE_GETATTR, (name,)), (consts.HANDLE_CALLATTR, (name, (), ()))):
            with pytest.raises(AttributeError):
                connection.sync_request(handler, root, *args)
        with pytest.raises(AttributeError):
            connection.sync_request(consts.HANDLE_GETATTR, root.add, "__func__")

    served(client)


def test_safe_dunders_on_plain_values_are_closed() -> None:
    def client(connection: Any) -> None:
        for target, name, argument in (
            (3, "__pow__", 30_000_000),
            ("%300000000d", "__mod__", 1),
            (b"x", "__mul__", 10**9),
        ):
            with pytest.raises(AttributeError):
                connection.sync_request(consts.HANDLE_CALLATTR, target, name, (argument,), ())
            with pytest.raises(AttributeError):
                connection.sync_request(consts.HANDLE_GETATTR, target, name)
        with pytest.raises(AttributeError):
            connection.sync_request(consts.HANDLE_CALL, "text", (), ())

    served(client)


def test_nothing_else_of_rpyc_is_open() -> None:
    ours = {
        consts.HANDLE_PING, consts.HANDLE_CLOSE, consts.HANDLE_GETROOT, consts.HANDLE_GETATTR, consts.HANDLE_CALL,
        consts.HANDLE_CALLATTR, consts.HANDLE_DEL, consts.HANDLE_INSPECT,
    }  # fmt: skip
    others = {value for name, value in vars(consts).items() if name.startswith("HANDLE_")} - ours

    def client(connection: Any) -> None:
        root = connection.root
        for handler in sorted(others | {0, 99, -1}):
            for args in ((), (root,), (root, 2), (root.add, "x", 1)):
                with pytest.raises(Exception, match="nothing else of RPyC's is open"):
                    connection.sync_request(handler, *args)
        assert connection.root.add(1) == 3

    served(client)


def test_inspect_tells_the_exposed_methods_of_the_root_and_nothing_of_anything_else() -> None:
    def client(connection: Any) -> None:
        root, method = connection.root, connection.root.add
        told = dict(connection.sync_request(consts.HANDLE_INSPECT, root.____id_pack__))
        assert told["add"] == "The sum."
        assert "hidden" not in told
        for pack in (method.____id_pack__, ("builtins.type", 1, 0), ("x", 1, 1), 5):
            with pytest.raises(AttributeError):
                connection.sync_request(consts.HANDLE_INSPECT, pack)
        assert max(root.____id_pack__[1:] + method.____id_pack__[1:]) < 1000, "an address would be larger"

    served(client)


def test_ping_is_answered_up_to_a_size() -> None:
    def client(connection: Any) -> None:
        connection.ping()
        with pytest.raises(Exception, match="ping"):
            connection.ping("x" * 100_000)

    served(client)


def test_closing_is_immediate_on_both_sides() -> None:
    async def scenario() -> None:
        async with Listener(SETTINGS, HOST, 0, Root()) as listener:
            connection = await asyncio.to_thread(rpyc.connect, HOST, listener.port)
            assert await asyncio.to_thread(lambda: connection.root.add(1)) == 3
            assert listener.connections == 1
            await asyncio.to_thread(connection.close)
            while listener.connections:
                await asyncio.sleep(0.005)

    run(scenario())
