"""Messages between an evaluation and the process of an environment: typed, framed, never code."""

import json
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from data_tools.episode import Observation
from eval_envs.episodes import EpisodeSpec
from eval_envs.messages import (
    Begin,
    BrokenStreamError,
    Execute,
    Made,
    Refused,
    receive,
    send,
)
from eval_envs.playing import Look, Lost
from tests.policy_ft.point_world import CONVENTIONS

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(5)
        yield ours, theirs


def look(**changes: Any) -> Look:
    images = {
        "a b": np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        "state": np.ones((1, 1, 3), np.uint8),
    }
    seen = Observation(images, np.array([0.1, np.nan, -np.inf], np.float32), "lift the \u2603")
    usual = Look(seen, (0.1, float("inf")), False, True, False, True, "pick", "red cube")
    return replace(usual, **changes)


@pytest.mark.parametrize(
    "message",
    [
        Begin(EpisodeSpec(env_id="a:B-v0", env_args={"c": [1, {"d": None}]}, seed=2**62)),
        Made(),
        Lost("step", "an error", "where\nit was"),
        Refused(("one", "two")),
    ],
)
def test_a_message_arrives_as_it_was_sent(pair: Pair, message: Any) -> None:
    send(pair[0], message)
    assert receive(pair[1]) == message


def test_arrays_arrive_bit_for_bit_and_one_message_after_the_other(pair: Pair) -> None:
    chunk = np.random.default_rng(0).normal(size=(8, 7)).astype(np.float32)
    for sent in (Execute(chunk[:, ::2]), look(), look(conventions=CONVENTIONS)):
        send(pair[0], sent)
    executed, first, second = (receive(pair[1]) for _ in range(3))
    assert isinstance(executed, Execute)
    assert isinstance(first, Look)
    assert isinstance(second, Look)
    np.testing.assert_array_equal(executed.actions, chunk[:, ::2])
    assert second.conventions == CONVENTIONS
    expected = look()
    assert replace(first, observation=expected.observation) == expected
    np.testing.assert_array_equal(first.observation.state, expected.observation.state)
    assert list(first.observation.images) == ["a b", "state"]
    for name, image in expected.observation.images.items():
        np.testing.assert_array_equal(first.observation.images[name], image)


def test_the_end_between_two_messages_is_no_fault(pair: Pair) -> None:
    pair[0].shutdown(socket.SHUT_WR)
    assert receive(pair[1]) is None


def framed(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<I", len(header) if length is None else length) + header


def header(kind: str, values: Any, arrays: Any = ()) -> bytes:
    return framed(json.dumps({"kind": kind, "values": values, "arrays": arrays}).encode())


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"\x05", "3 bytes early"),
        (framed(b"{}", 10), "8 bytes early"),
        (b"a simulator that talks", "bytes; expected a message"),
        (framed(b"not JSON"), "in a message; expected one of ours"),
        (header("Eval", {}), "'Eval'"),
        (header("Lost", {"stage": "step"}), "in a message"),
        (header("Begin", {"env_id": "a:B-v0", "seed": -1}), "in a message"),
        (header("Execute", {}, [["actions", "|O", [1]]]), "expected numbers"),
        (header("Execute", {}, [["actions", "<f4", [1 << 20, 1 << 20]]]), "at most 1 GiB"),
        (header("Execute", {}, [["actions", "<f4", [-1, 4]]]), "at most 1 GiB"),
        (header("Execute", {}, [["actions", "<f4", [2, 2]]]) + b"1234", "12 bytes early"),
    ],
)
def test_what_is_no_message_is_refused(pair: Pair, stream: bytes, words: str) -> None:
    pair[0].sendall(stream)
    pair[0].shutdown(socket.SHUT_WR)
    with pytest.raises(BrokenStreamError, match=words):
        receive(pair[1])
