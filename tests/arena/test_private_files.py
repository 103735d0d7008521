"""Files with secrets or votes: whole, for their owner only, and no key that could be guessed."""

from __future__ import annotations

import base64
import io
import os
import zipfile
from pathlib import Path

import pytest
from itsdangerous import TimestampSigner
from itsdangerous.encoding import base64_encode
from store_fixtures import Hand

from arena.exports.archive import ArchiveError, make_dataset, packed
from arena.exports.dataset import ExportOptions
from arena.storage.backup import backup, restore
from arena.storage.pair_cache import PairCache
from arena.storage.private_files import write_private
from arena.storage.store import Store
from arena.values.vote import Winner
from arena.web.authentication import Authenticator, KeyFileError
from arena.web.users import FILE, make_user, write_users


@pytest.mark.parametrize("content", [b"", b"\n", b" \n\n", b"short\n", b"x" * 31, b"\0" * 7])
def test_a_key_that_is_no_secret_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    """A full disk leaves an empty file; with it everybody would be admin."""
    (tmp_path / "admin.key").write_bytes(content)
    authenticator = Authenticator(tmp_path)
    with pytest.raises(KeyFileError, match=r"admin\.key holds \d+ bytes .* delete it"):
        authenticator.check()
    for key in ("", content.decode()):
        with pytest.raises(KeyFileError):
            authenticator.enter(key)
    forged = TimestampSigner("", "session\n\n", key_derivation="hmac").sign(base64_encode(""))
    cookies = {"arena_session": forged.decode()}
    with pytest.raises(KeyFileError):
        authenticator.visitor(cookies, None, "")
    basic = base64.b64encode(b":").decode()
    for header in ("Bearer  ", f"Basic {basic}", "Bearer"):
        with pytest.raises(KeyFileError):
            authenticator.visitor({}, None, header)


def test_a_key_is_made_once_whole_and_private(tmp_path: Path) -> None:
    keys = {Authenticator(tmp_path).key for _ in range(5)}
    assert len(keys) == 1
    assert len(keys.pop()) >= 32
    assert (tmp_path / "admin.key").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["admin.key"]
    (tmp_path / "admin.key").chmod(0o644)  # as a copy of a home may be
    assert Authenticator(tmp_path).enter("") is None
    assert (tmp_path / "admin.key").stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_whole_leaves_the_file_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "users.toml"
    write_private(path, "before")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "half of a pair: \ud800")
    assert path.read_text() == "before"
    write_private(path, "other", replace=False)
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["users.toml"]


def test_files_with_votes_and_secrets_are_for_their_owner(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        store = Store.at_home(tmp_path)
        hand = Hand(store)
        hand.vote(Winner.MODEL_A)
        PairCache(store, many=0).refresh()
        write_users(tmp_path / FILE, {"ann": make_user("ann", "voter", "long enough")})
        assert Authenticator(tmp_path).key
        made = make_dataset(store, tmp_path, ExportOptions())
        backup(store, tmp_path / "copy.db")
        restore(tmp_path / "copy.db", tmp_path / "other" / "arena.db")
    finally:
        os.umask(old)
    found = {
        path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert {name: mode for name, mode in found.items() if mode != 0o600} == {}
    assert {"arena.db", "arena.db-pairs", "admin.key", "users.toml", "copy.db"} <= set(found)
    assert (tmp_path / "exports" / made.name).stat().st_mode & 0o777 == 0o700


def test_an_archive_follows_no_link(tmp_path: Path) -> None:
    store = Store.at_home(tmp_path)
    Hand(store).vote(Winner.MODEL_A)
    name = make_dataset(store, tmp_path, ExportOptions()).name
    folder = tmp_path / "exports" / name
    secret = tmp_path / "admin.key"
    secret.write_text("the key of this home")
    (folder / "link.txt").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    (folder / "data" / "gone").symlink_to("nowhere")
    with zipfile.ZipFile(io.BytesIO(packed(tmp_path, name))) as archive:
        names = archive.namelist()
        assert f"{name}/MANIFEST.json" in names
        assert not [one for one in names if "link" in one or "gone" in one]
        assert all(b"the key of this home" not in archive.read(one) for one in names)
    other = name[:-6] + "abcdef"
    (tmp_path / "exports" / other).symlink_to(folder)
    with pytest.raises(ArchiveError):
        packed(tmp_path, other)
