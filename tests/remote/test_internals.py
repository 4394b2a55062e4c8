"""What we rely on inside RPyC. If one of these fails, RPyC has moved: read `node/remote` before moving the pin."""

from __future__ import annotations

import inspect

import rpyc
from rpyc.core import brine, consts, netref, protocol, vinegar
from rpyc.core.channel import Channel

from node.remote import framing
from node.remote.connection import Connection
from node.remote.exposure import METHOD_TYPE


def test_the_version_is_the_one_that_was_read() -> None:
    assert rpyc.__version__ == "6.0.2"


def test_numbers_on_the_wire() -> None:
    assert (consts.MSG_REQUEST, consts.MSG_REPLY, consts.MSG_EXCEPTION) == (1, 2, 3)
    assert (consts.LABEL_VALUE, consts.LABEL_TUPLE, consts.LABEL_LOCAL_REF, consts.LABEL_REMOTE_REF) == (1, 2, 3, 4)
    handlers = {name: value for name, value in vars(consts).items() if name.startswith("HANDLE_")}
    assert handlers == {
        "HANDLE_PING": 1, "HANDLE_CLOSE": 2, "HANDLE_GETROOT": 3, "HANDLE_GETATTR": 4, "HANDLE_DELATTR": 5,
        "HANDLE_SETATTR": 6, "HANDLE_CALL": 7, "HANDLE_CALLATTR": 8, "HANDLE_REPR": 9, "HANDLE_STR": 10,
        "HANDLE_CMP": 11, "HANDLE_HASH": 12, "HANDLE_DIR": 13, "HANDLE_PICKLE": 14, "HANDLE_DEL": 15,
        "HANDLE_INSPECT": 16, "HANDLE_BUFFITER": 17, "HANDLE_OLDSLICING": 18, "HANDLE_CTXEXIT": 19,
        "HANDLE_INSTANCECHECK": 20,
    }  # fmt: skip


def test_frames() -> None:
    assert Channel.FRAME_HEADER.format == framing.HEADER.format
    assert Channel.FLUSHER == framing.TRAILER


def test_brine() -> None:
    samples = {
        None: "00", b"": "01", (): "02", True: "03", False: "04", "": "0801", "a": "080a61", b"abcde": "0e056162636465",
        (5,): "1055", (5, 6): "115556", (1, 2, 3, 4): "1351525354", (0, 0, 0, 0, 0): "14055050505050", -0x30: "20",
        0x9F: "ef", 160: "1603313630", 0.5: "183fe0000000000000",
    }  # fmt: skip
    for value, written in samples.items():
        assert brine.dump(value).hex() == written
    assert brine.dump(b"x" * 256)[:5].hex() == "0f00000100"
    assert brine.dump((None,) * 256)[:5].hex() == "1500000100"
    assert brine.dump(10**299)[:5].hex() == "170000012c"
    assert brine.I1.pack(1) == b"\x01"


def test_what_the_subclass_overrides_is_still_called_so() -> None:
    for name in (
        "_cleanup", "_dispatch", "_dispatch_request", "_request_handlers", "_unbox", "_box", "_send", "_netref_factory",
        "_async_request", "_get_seq_id", "_handle_ping", "_handle_close", "_handle_getroot", "_handle_getattr",
        "_handle_call", "_handle_callattr", "_handle_del", "_handle_inspect", "close", "closed", "root", "sync_request",
        "async_request", "serve", "serve_all", "serve_threaded", "poll", "poll_all", "ping", "fileno", "__del__",
    ):  # fmt: skip
        assert hasattr(protocol.Connection, name), name
        assert name in vars(Connection) or name == "_get_seq_id", name
    assert [*inspect.signature(protocol.Connection.__init__).parameters] == ["self", "root", "channel", "config"]
    assert {"_HANDLERS", "_seqcounter"} <= {*protocol.Connection.__init__.__code__.co_names}


def test_the_stock_class_has_no_public_method_that_we_forgot_to_close_off() -> None:
    public = {name for name in vars(protocol.Connection) if not name.startswith("_")}
    assert public <= {*vars(Connection)}


def test_errors_travel_as_they_did() -> None:
    dumped = vinegar.dump(ValueError, ValueError("x", 1), None, False, False)
    assert dumped[0] == ("builtins", "ValueError")
    assert dumped[1] == ("x", 1)
    assert len(dumped) == 4
    loaded = vinegar.load((("node.errors", "BadValue"), ("x", 1), (), "tb"), False, False, False)
    assert isinstance(loaded, vinegar.GenericException)
    assert loaded.args == ("x", 1)


def test_a_stock_client_calls_bound_methods_without_inspecting_them() -> None:
    assert METHOD_TYPE in netref.builtin_classes_cache
    assert "__call__" in vars(netref.builtin_classes_cache[METHOD_TYPE])
