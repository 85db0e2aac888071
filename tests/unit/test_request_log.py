"""The file of the request log: it never waits, it follows its name, and it recovers."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import cli
from service.config.layers import BadOption
from service.records.log_writer import RequestLog
from stepgrpo_core import InvalidSetting
from tests.support.service.defaults import read as read_options

SECONDS = 10.0  # for what happens at once on a machine that is not busy


class Opened:
    """A log that writes, and what it dropped."""

    def __init__(self, path: Path, **bounds: int) -> None:
        self.lost = 0
        self.path = path
        self.log = RequestLog(path, **bounds)
        self._lock = threading.Lock()
        self.log.start(self._count)

    def _count(self, lines: int) -> None:
        with self._lock:
            self.lost += lines

    def wait(self, lines: int, lost: int = 0) -> None:
        deadline = time.monotonic() + SECONDS
        while (found := (len(read(self.path)), self.lost)) != (lines, lost):
            assert time.monotonic() < deadline, found
            time.sleep(0.005)


def read(path: Path) -> list[Any]:
    """The whole lines of a file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path / "log.jsonl")
    yield made
    made.log.close()


def test_lines_are_written_in_their_order_and_appended(opened: Opened) -> None:
    for number in range(1000):
        opened.log.write({"n": number})
    opened.wait(1000)
    again = Opened(opened.path)
    again.log.write({"n": 1000})
    again.log.close()
    assert read(opened.path) == [{"n": number} for number in range(1001)]
    assert opened.path.stat().st_mode & 0o007 == 0, "the log is not everybody's"


def test_what_was_taken_is_written_before_it_closes(tmp_path: Path) -> None:
    made = Opened(tmp_path / "log.jsonl")
    for number in range(500):
        made.log.write({"n": number})
    made.log.close()
    assert len(read(made.path)) == 500


@pytest.mark.parametrize(
    "text", ['x\r\n{"id": "forged"}', "a\u2028b\x85c", "\x1b[2J\x00", "\ud800"]
)
def test_nothing_in_a_value_starts_a_line(opened: Opened, text: str) -> None:
    opened.log.write({"id": text})
    opened.wait(1)
    raw = opened.path.read_bytes()
    assert raw.count(b"\n") == 1
    assert raw.isascii()
    assert not [byte for byte in raw[:-1] if byte < 32]
    assert json.loads(raw) == {"id": text}


@pytest.mark.parametrize("name", ["", "gone/log.jsonl", "pipe"])
def test_a_file_that_cannot_be_opened_is_a_clear_error(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")  # that nobody reads
    path = tmp_path / name
    with pytest.raises(InvalidSetting, match=r"log='.*' is invalid: .*can be written"):
        RequestLog(path)


@pytest.mark.parametrize(
    ("environment", "file", "source"),
    [
        ({}, None, "flag: --exit-log="),
        ({"STEPGRPO_EXIT_LOG": "/nowhere/x"}, None, "environment: STEPGRPO_EXIT_LOG="),
        ({}, "log: /nowhere/x", "file .*exit.yaml: log="),
    ],
)
def test_the_error_says_where_the_file_was_named(
    tmp_path: Path, environment: dict[str, str], file: str | None, source: str
) -> None:
    flags = [] if environment or file else ["--exit-log", "/nowhere/x"]
    defaults = read_options(*flags, environment=environment, file=file, at=tmp_path)
    with pytest.raises(BadOption, match=f"^{source}'/nowhere/x' .*No such file"):
        cli._log(defaults)


def test_a_file_that_was_moved_away_is_opened_anew(opened: Opened, tmp_path: Path) -> None:
    moved = tmp_path / "log.jsonl.1"
    opened.log.write({"n": 0})
    opened.wait(1)
    opened.path.rename(moved)
    opened.log.write({"n": 1})
    opened.wait(1)
    opened.path.rename(tmp_path / "log.jsonl.2")
    opened.path.touch()  # as logrotate's `create` does
    opened.log.write({"n": 2})
    opened.wait(1)
    opened.path.unlink()
    opened.log.write({"n": 3})
    opened.wait(1)
    assert (read(moved), read(opened.path)) == ([{"n": 0}], [{"n": 3}])
    os.truncate(opened.path, 0)  # as its `copytruncate` does
    opened.log.write({"n": 4})
    opened.wait(1)
    assert opened.path.read_bytes() == b'{"n":4}\n'


def test_a_full_disk_loses_lines_that_are_counted_and_recovers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, good = tmp_path / "log.jsonl", tmp_path / "good.jsonl"
    path.symlink_to("/dev/full")
    made = Opened(path)
    for number in range(20):
        made.log.write({"n": number})
    made.wait(0, lost=20)
    (tmp_path / "new").symlink_to(good)
    (tmp_path / "new").replace(path)
    made.log.write({"n": 20})
    made.wait(1, lost=20)
    made.log.close()
    assert read(good) == [{"n": 20}]
    warnings = [each for each in caplog.records if "lines are dropped" in each.message]
    assert len(warnings) == 1, "once, not with every line"
    assert "No space left on device" in warnings[0].message


def test_a_folder_that_is_gone_for_a_while(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    made = Opened(folder / "log.jsonl")
    made.log.write({"n": 0})
    made.wait(1)
    folder.rename(tmp_path / "away")
    made.log.write({"n": 1})
    made.wait(0, lost=1)
    folder.mkdir()
    made.log.write({"n": 2})
    made.wait(1, lost=1)
    made.log.close()


TORN = """
import json, resource, signal, sys, time
from pathlib import Path
from service.records.log_writer import RequestLog

path, lost = Path(sys.argv[1]), []
log = RequestLog(path)
log.start(lost.append)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (50, hard))
for number in range(3):
    log.write({"n": number, "text": "x" * 40})
while len(lost) < 3:
    time.sleep(0.01)
half = path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.write({"n": 3})
log.close()
print(json.dumps({"half": half, "lines": path.read_text().split("\\n")}))
"""


def test_a_line_that_a_full_disk_cut_in_two_spoils_no_other(tmp_path: Path) -> None:
    """The limit on the size of files cuts as a full disk does; in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", TORN, str(tmp_path / "log.jsonl")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    assert found["half"] == 50
    assert len(found["lines"][0]) == 50, "the half one"
    assert found["lines"][1:] == ['{"n":3}', ""]


def test_a_disk_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    """A pipe whose reader sleeps: writing to it waits, without end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    made = Opened(path, max_lines=100)
    wrote = 3000
    for number in range(wrote):  # else this would not end
        made.log.write({"n": number, "text": "x" * 1000})
    deadline = time.monotonic() + SECONDS
    while made.lost < wrote - 200:  # some in the pipe, some in the queue
        assert time.monotonic() < deadline, made.lost
    made.log.close(timeout=0.1)
    os.close(reader)


def test_completions_that_wait_are_bounded_by_their_size(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    made = Opened(path)
    for _ in range(40):
        made.log.write({"text": "x" * 2**20})
    assert 40 - 32 - 2 <= made.lost <= 40 - 32
    made.log.write({"n": 1})  # a line without is no burden
    assert made.lost <= 40 - 32
    made.log.close(timeout=0.1)
    os.close(reader)


def test_what_is_no_json_is_a_lost_line_and_no_lost_log(opened: Opened) -> None:
    opened.log.write({"n": object()})
    opened.log.write({"n": 1})
    opened.wait(1, lost=1)
