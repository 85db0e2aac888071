"""A forked engine drops the state of its server and has its own threads and cores."""

import multiprocessing
import os
import signal
import socket
from multiprocessing.connection import Connection

import pytest
import torch

from service.process import die_with_parent
from service.process.engine_process import Threads, _drop_server_state

FORK = multiprocessing.get_context("fork")


def forgetful(bound: list[socket.socket | None], ready: Connection) -> None:
    """Drop the server's state as an engine process does, then wait to be ended."""
    _drop_server_state(bound)
    ready.send(True)
    signal.pause()


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_the_port_is_free_when_the_server_lets_it_go(listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    here, there = FORK.Pipe()
    engine = FORK.Process(target=forgetful, args=([listening, None], there))
    engine.start()
    assert here.recv()
    listening.close()
    try:
        socket.create_server(("127.0.0.1", port)).close()
    finally:
        engine.kill()
        engine.join()


def test_a_signal_for_the_engine_is_none_for_the_server() -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    seen: list[int] = []
    before = signal.set_wakeup_fd(writing), signal.signal(signal.SIGTERM, lambda *_: seen.append(1))
    here, there = FORK.Pipe()
    engine = FORK.Process(target=forgetful, args=([], there))
    try:
        engine.start()
        assert here.recv()
        engine.terminate()
        engine.join()
        assert engine.exitcode == -signal.SIGTERM
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
        assert not seen
    finally:
        signal.set_wakeup_fd(before[0])
        signal.signal(signal.SIGTERM, before[1])
        os.close(reading)
        os.close(writing)


def test_threads_compute_on_the_chosen_cores_alone() -> None:
    core = min(os.sched_getaffinity(0))

    def settled(told: Connection) -> None:
        Threads(1, frozenset([core])).apply()
        told.send((os.sched_getaffinity(0), torch.get_num_threads()))

    here, there = FORK.Pipe()
    engine = FORK.Process(target=settled, args=(there,))
    engine.start()
    assert here.recv() == ({core}, 1)
    engine.join()


def test_without_a_choice_nothing_is_changed() -> None:
    before = os.sched_getaffinity(0), torch.get_num_threads()
    Threads(None, frozenset()).apply()
    assert (os.sched_getaffinity(0), torch.get_num_threads()) == before


def test_what_a_forked_engine_begins_with_is_forgotten_afterwards() -> None:

    def begin() -> None: ...

    with die_with_parent.at_fork(begin):
        assert die_with_parent._fork_hooks == [begin]
    assert die_with_parent._fork_hooks == []
