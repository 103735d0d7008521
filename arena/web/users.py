"""The user file: who may sign in, with which role. Knows no HTTP and no session.

`<home>/users.toml` holds names, roles and scrypt hashes of passwords, never a password. Where it is
missing, nobody signs in.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from arena.errors import ArenaError
from arena.storage.private_files import write_private

FILE = "users.toml"
NAME = re.compile(r"[\w.@-]{1,64}")
ROLES = ("voter", "admin")
SHORTEST = 8
COST = {"n": 2**14, "r": 8, "p": 1}  # 16 MB and some 50 ms a guess
Role = Literal["voter", "admin"]


class UserError(ArenaError):
    """A user, a role, a password or a line of the user file that cannot be; with the remedy."""


@dataclass(frozen=True)
class User:
    """One line of the file; `password` is `scrypt$<salt>$<hash>` in base64."""

    name: str
    role: Role
    password: str


def read_users(path: Path) -> dict[str, User] | None:
    """The users by name; None where there is no file. Raises UserError."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as TOML ({error}); correct it") from error
    table = content.get("users", {})
    if set(content) - {"users"} or not isinstance(table, Mapping):
        raise UserError(f"{path}: known is [users] only; correct it")
    return {name: _user(path, name, fields) for name, fields in table.items()}


def _user(path: Path, name: str, fields: object) -> User:
    if not isinstance(fields, Mapping) or set(fields) != {"role", "password"}:
        raise UserError(f"{path}: user {name!r} needs role and password; use 'arena users add'")
    role, password = fields["role"], fields["password"]
    if role not in ROLES:
        raise UserError(f"{path}: role {role!r} of {name!r} is unknown; use voter or admin")
    if not isinstance(password, str) or password.count("$") != 2:
        raise UserError(f"{path}: password of {name!r} is no hash; use 'arena users add'")
    return User(check_user_name(name), role, password)


def write_users(path: Path, users: Mapping[str, User]) -> None:
    """The whole file at once, readable by its owner only."""
    lines = ["# Written by 'arena users'; a password is kept as a scrypt hash only."]
    for user in users.values():
        entry = f'{{ role = "{user.role}", password = "{user.password}" }}'
        lines.append(f'users."{user.name}" = {entry}')
    write_private(path, "\n".join(lines) + "\n")


def make_user(name: str, role: str, password: str) -> User:
    """A user with the hash of a password. Raises UserError."""
    if role not in ROLES:
        raise UserError(f"role {role!r} is unknown; use voter or admin")
    if len(password) < SHORTEST:
        raise UserError(f"the password has {len(password)} characters; give {SHORTEST} or more")
    salt = secrets.token_bytes(16)
    parts = (base64.b64encode(part).decode() for part in (salt, _hash(password, salt)))
    return User(
        check_user_name(name), "admin" if role == "admin" else "voter", "$".join(("scrypt", *parts))
    )


def check_user_name(name: str) -> str:
    """The name, or UserError."""
    if not NAME.fullmatch(name):
        raise UserError(f"user name {name!r} has other characters than letters, digits, . @ - _")
    return name


def matches(user: User | None, password: str) -> bool:
    """Whether this is the user's password; takes as long for a user who does not exist."""
    salt, wanted = b"no such user", b""
    if user is not None:
        _, first, second = user.password.split("$")
        salt, wanted = base64.b64decode(first), base64.b64decode(second)
    return hmac.compare_digest(_hash(password, salt), wanted)


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8", "replace"), salt=salt, **COST)
