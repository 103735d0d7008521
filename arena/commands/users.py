"""The commands about who may sign in: names, options and help; each body imports what it calls."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from arena.commands.options import DEFAULT_HOME, Home, Json

users_app = typer.Typer(help="Who may sign in on the page, and as what.", no_args_is_help=True)


@users_app.command("add")
def add_user(
    name: Annotated[str, typer.Argument(help="Name to sign in with.")],
    role: Annotated[str, typer.Option("--role", help="voter or admin.")] = "voter",
    home: Home = DEFAULT_HOME,
) -> None:
    """Add a user, or change role and password; from the first user on everybody signs in.

    The password is asked for on a terminal, else read from the first line of standard input.
    """
    from arena.web.users import FILE, make_user, read_users, write_users

    if sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        password = sys.stdin.readline().rstrip("\n")
    user = make_user(name, role, password)
    users = read_users(home / FILE) or {}
    write_users(home / FILE, {**users, name: user})
    print(f"{name} may sign in as {user.role}")


@users_app.command("remove")
def remove_user(
    name: Annotated[str, typer.Argument(help="Name of the user.")], home: Home = DEFAULT_HOME
) -> None:
    """Remove a user, but for the last one."""
    from arena.web.users import FILE, UserError, read_users, write_users

    users = read_users(home / FILE) or {}
    if name not in users:
        known = ", ".join(users) or "none"
        raise UserError(f"user {name!r} is unknown; known are {known}")
    if len(users) == 1:
        raise UserError(f"{name} is the last user; delete {home / FILE} to let everybody vote")
    write_users(home / FILE, {key: user for key, user in users.items() if key != name})
    print(f"{name} may not sign in any more")


@users_app.command("list")
def list_users(home: Home = DEFAULT_HOME, json_out: Json = False) -> None:
    """Show who may sign in."""
    import json

    from arena.web.users import FILE, read_users

    users = read_users(home / FILE) or {}
    if json_out:
        shown = [{"name": user.name, "role": user.role} for user in users.values()]
        print(json.dumps({"users": shown}))
        return
    for user in users.values():
        print(f"{user.name}: {user.role}")


@users_app.command("link")
def admin_link(
    url: Annotated[str, typer.Option("--url", help="Address of the page.")] = (
        "http://127.0.0.1:7860"
    ),
    home: Home = DEFAULT_HOME,
) -> None:
    """Print the link that opens the admin page where nobody signs in; keep it secret."""
    from arena.web.authentication import Authenticator
    from arena.web.users import UserError

    authenticator = Authenticator(home)
    if authenticator.users is not None:
        raise UserError("there is a user file, so admins sign in; the link would not work")
    print(f"{url.rstrip('/')}/enter?key={authenticator.key}")
