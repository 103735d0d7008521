"""Tells visitors apart: by a signed session, a password in a header, or a browser's random cookie.

Without a user file anybody may vote, and an admin comes in by a link with the key of the home.
A session is a name and the time of signing in, signed with that key (itsdangerous); nothing is
kept on the server. A cookie signed otherwise is no session: its owner signs in again, and is the
same voter by their name. The random cookie by which others are known is not signed. Knows headers
and the user file, no page.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

from itsdangerous import BadData, TimestampSigner
from itsdangerous.encoding import base64_decode, base64_encode

from arena.errors import ArenaError
from arena.storage.private_files import OWNER_ONLY, write_private
from arena.web.users import FILE, User, matches, read_users
from arena.web.visitors import Visitor

KEY_FILE = "admin.key"
SESSION_COOKIE = "arena_session"
SESSION_SECONDS = 30 * 24 * 3600
ADMIN = ""  # the name of a session opened with the key; no user can have it
MOST_REMEMBERED = 1_000
SHORTEST_KEY = 32  # bytes


class KeyFileError(ArenaError):
    """The file of the admin's key holds none: a shorter one would let sessions be forged."""


class Authenticator:
    """Knows who may come in, from `users.toml` and `admin.key` of a home folder."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._read_at: int | None = None
        self._users: dict[str, User] | None = None
        self._key = b""
        self._verified: OrderedDict[bytes, str] = OrderedDict()

    @property
    def users(self) -> dict[str, User] | None:
        """The users as the file has them now; None without a file. Raises UserError."""
        path = self._home / FILE
        try:
            changed = path.stat().st_mtime_ns
        except FileNotFoundError:
            changed = None
        if changed != self._read_at or (changed is None) != (self._users is None):
            self._users = read_users(path)
            self._verified.clear()
            self._read_at = changed
        return self._users

    def check(self) -> bool:
        """Whether one has to sign in. Raises UserError for a user file that makes no sense, and
        KeyFileError for a key that is none.
        """
        if (self._home / KEY_FILE).exists():
            assert self.key
        return self.users is not None

    @property
    def key(self) -> str:
        """The secret of this home, made at its first use; only its owner can read the file.

        Raises KeyFileError.
        """
        if not self._key:
            self._key = _read_key(self._home / KEY_FILE)
        return self._key.decode()

    def visitor(self, cookies: Mapping[str, str], voter: str | None, header: str) -> Visitor | None:
        """Who asks; None for a stranger where one has to sign in.

        Args:
            cookies: of the request.
            voter: what the voter's random cookie says, checked already.
            header: the Authorization header, or nothing.
        """
        users = self.users
        name = self._session(cookies.get(SESSION_COOKIE, ""))
        name = self._password(header) if name is None else name
        if users is None:
            return Visitor(voter, is_admin=name == ADMIN)
        user = users.get(name or "")
        if user is None:
            return None
        return Visitor(f"user:{user.name}", user.name, user.role == "admin", is_open=False)

    def is_new_guess(self, header: str) -> bool:
        """Whether a header holds a password that was not found right before."""
        return bool(header) and hashlib.sha256(header.encode()).digest() not in self._verified

    def sign_in(self, name: str, password: str) -> str | None:
        """A session for a name and its password; None if they are wrong."""
        user = (self.users or {}).get(name)
        return self._signed(name) if matches(user, password) else None

    def enter(self, key: str) -> str | None:
        """An admin's session for the key of the home, where nobody signs in."""
        right = hmac.compare_digest(key.encode("utf-8", "replace"), self.key.encode())
        return self._signed(ADMIN) if right and self.users is None else None

    def _signed(self, name: str) -> str:
        return self._signer(name).sign(base64_encode(name)).decode()

    def _session(self, cookie: str) -> str | None:
        """The name of a session that is ours and has not ended."""
        try:
            name = base64_decode(cookie.partition(".")[0]).decode()
            self._signer(name).unsign(cookie.encode(), max_age=SESSION_SECONDS)
        except (BadData, UnicodeError):
            return None
        return name

    def _signer(self, name: str) -> TimestampSigner:
        """Signs with the password's hash too: a new password ends all sessions."""
        user = (self.users or {}).get(name)
        salt = f"session\n{name}\n{user.password if user else ''}"
        return TimestampSigner(self.key, salt, key_derivation="hmac", digest_method=hashlib.sha256)

    def _password(self, header: str) -> str | None:
        """The name of `Basic name:password`, or of `Bearer key` where nobody signs in."""
        kind, _, value = header.partition(" ")
        known = hashlib.sha256(header.encode()).digest()
        if kind.lower() == "bearer" and value and self.enter(value.strip()):
            self._remember(known, ADMIN)
            return ADMIN
        if kind.lower() != "basic":
            return None
        if known in self._verified:
            return self._verified[known]
        try:
            name, _, password = base64.b64decode(value, validate=True).decode().partition(":")
        except ValueError:  # no base64, no UTF-8, no ASCII
            return None
        if not matches((self.users or {}).get(name), password):
            return None
        self._remember(known, name)
        return name

    def _remember(self, known: bytes, name: str) -> None:
        self._verified[known] = name
        if len(self._verified) > MOST_REMEMBERED:
            self._verified.popitem(last=False)


def claimed_name(header: str) -> str:
    """The name for which a header gives a password; "" for the admin's key and what is neither."""
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        return ADMIN
    try:
        return base64.b64decode(value, validate=True).decode().partition(":")[0]
    except ValueError:  # no base64, no UTF-8, no ASCII
        return ADMIN


def _read_key(path: Path) -> bytes:
    """The key of a home, made if there is none. Raises KeyFileError for one that is no secret."""
    try:
        if not path.exists():
            write_private(path, secrets.token_urlsafe(32) + "\n", replace=False)
        key = path.read_bytes().strip()
        if path.stat().st_mode & 0o077:
            path.chmod(OWNER_ONLY)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be used ({error.strerror}); correct that") from error
    if len(key) < SHORTEST_KEY or not key.isascii():
        raise KeyFileError(
            f"{path} holds {len(key)} bytes and no key of {SHORTEST_KEY} or more letters;"
            " delete it, and a new one is made"
        )
    return key
