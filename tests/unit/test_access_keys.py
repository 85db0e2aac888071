"""API keys: the file format, and that a change is applied as a whole or not at all."""

import asyncio
import logging
import os
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from service.access import keys
from service.access.identity import caller_of
from service.access.keys import BadKeys, KeyRing, digest_of, parse_keys


def test_a_file_has_a_key_per_line_with_names_and_comments() -> None:
    text = "# of the team\n\nsk-1\n  alice: sk-2  \r\nbob.x_-1: a:b\nno:name\n"
    assert parse_keys(text) == {
        digest_of("sk-1"): "line 3",
        digest_of("sk-2"): "alice",
        digest_of("a:b"): "bob.x_-1",
        digest_of("no:name"): "line 6",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key: write one per line"),
        ("# none\n\n", "holds no key: write one per line"),
        ("fine\ntwo words\n", "line 2 holds no key"),
        ("alice: \n", "line 1 holds no key"),
        ("schlüssel\n", "line 1 holds no key"),
        ("a\x00b\n", "line 1 holds no key"),
    ],
)
def test_what_is_no_key_is_named_by_its_line_and_not_quoted(text: str, message: str) -> None:
    with pytest.raises(BadKeys, match=message) as caught:
        parse_keys(text)
    assert "words" not in str(caught.value)
    assert "schl" not in str(caught.value)


def test_a_file_that_is_no_text_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"secret\xff")
    with pytest.raises(BadKeys, match="not UTF-8") as caught:
        KeyRing((), tmp_path / "keys")
    assert "secret" not in repr(caught.value.__cause__)


def accepted(ring: KeyRing, *texts: str) -> list[bool]:
    return [ring.contains(digest_of(text)) for text in texts]


def test_keys_of_the_flag_and_of_the_file_are_all_known(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("filed\n")
    ring = KeyRing(["fixed"], tmp_path / "keys")
    assert ring.required
    assert accepted(ring, "fixed", "filed", "other", "") == [True, True, False, False]
    assert not ring.contains(b"")
    assert REGISTRY.get_sample_value("stepgrpo_api_keys") == 2


def test_without_keys_nothing_is_guarded() -> None:
    ring = KeyRing()
    assert not ring.required
    asyncio.run(asyncio.wait_for(ring.watch(), 1))  # without a file, it returns


def test_the_keys_themselves_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("name: filed\n")
    ring = KeyRing(["fixed"], tmp_path / "keys")
    held = repr([ring._fixed, ring._named, ring._digests])
    assert "fixed" not in held
    assert "filed" not in held


def replace(path: Path, text: str) -> None:
    """Replace a file atomically, as editors and Kubernetes do."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def reloads(to: str) -> float:
    return REGISTRY.get_sample_value("stepgrpo_api_key_reloads_total", {"to": to}) or 0.0


def test_a_new_file_is_taken_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    path.write_text("old: secret-a\nboth: secret-b\n")
    ring = KeyRing((), path)
    caplog.set_level(logging.INFO, "vllm.stepgrpo")
    before = reloads("read")
    ring.refresh(path)
    assert reloads("read") == before, "nothing has changed"
    replace(path, "both: secret-b\nnew: secret-c\n")
    ring.refresh(path)
    assert accepted(ring, "secret-a", "secret-b", "secret-c") == [False, True, True]
    assert reloads("read") == before + 1
    assert "2 keys; new: new; gone: old" in caplog.text
    assert "secret" not in caplog.text


def test_a_secret_of_kubernetes_changes_behind_a_link(tmp_path: Path) -> None:
    """The file is a link into a folder that is itself a link, which is replaced."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keys").write_text(f"{name}\n")
    (tmp_path / "..data").symlink_to("one")
    (tmp_path / "keys").symlink_to("..data/keys")
    ring = KeyRing((), tmp_path / "keys")
    (tmp_path / "..new").symlink_to("two")
    (tmp_path / "..new").replace(tmp_path / "..data")
    ring.refresh(tmp_path / "keys")
    assert accepted(ring, "one", "two") == [False, True]


@pytest.mark.parametrize("fault", ["gone", "empty", "torn", "folder"])
def test_a_new_file_that_cannot_be_read_changes_nothing(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    path.write_text("secret-a\n")
    ring = KeyRing((), path)
    before = reloads("kept")
    path.unlink()
    if fault == "folder":
        path.mkdir()
    elif fault != "gone":
        path.write_text("" if fault == "empty" else "secret-b\nsecret c\n")
    for _ in range(3):
        ring.refresh(path)
    assert accepted(ring, "secret-a", "secret-b") == [True, False]
    assert reloads("kept") == before + 1, "reported once"
    assert "The keys stay" in caplog.text
    assert "secret" not in caplog.text
    if fault == "folder":
        path.rmdir()
    path.write_text("secret-d\n")
    ring.refresh(path)
    assert accepted(ring, "secret-a", "secret-d") == [False, True]


def test_a_file_is_watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "POLL_SECONDS", 0.01)
    path = tmp_path / "keys"
    path.write_text("a\n")
    ring = KeyRing((), path)

    async def until_known() -> None:
        watch = asyncio.create_task(ring.watch())
        os.utime(path)  # reloaded, although nothing changed
        path.write_text("b\n")
        while not ring.contains(digest_of("b")):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        watch.cancel()

    asyncio.run(asyncio.wait_for(until_known(), 30))


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ([(b"authorization", b"Bearer k")], "k"),
        ([(b"authorization", b"bearer k")], "k"),
        ([(b"x-api-key", b"k")], "k"),
        ([(b"x-api-key", b"other"), (b"authorization", b"Bearer k")], "k"),
        ([(b"authorization", b"Bearer k"), (b"authorization", b"Bearer other")], "k"),
        ([(b"authorization", b"Basic k"), (b"x-api-key", b"k")], None),
        ([(b"authorization", b"k")], None),
        ([(b"cookie", b"Bearer k")], None),
    ],
)
def test_a_key_is_found_where_clients_put_it(
    headers: list[tuple[bytes, bytes]], key: str | None
) -> None:
    assert caller_of(headers) == (digest_of(key) if key else b"")
