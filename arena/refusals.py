"""Acts on a battle that the store does not accept, one named error each; knows no cause."""

from __future__ import annotations

from typing import ClassVar

from arena.errors import ArenaError


class RefusedError(ArenaError):
    """An act the store does not accept; `status` is the HTTP status that fits it."""

    status: ClassVar[int] = 409


class UnknownBattleError(RefusedError):
    """No battle of this id, or a turn it does not have."""

    status = 404


class WrongTokenError(RefusedError):
    """Neither the battle's secret nor its owner."""

    status = 403


class SideFailedError(RefusedError):
    """A side has no answer to judge: it failed or was never asked."""


class UnfinishedError(RefusedError):
    """A side is still writing and the vote was not marked as given before the end."""


class StillBlindError(RefusedError):
    """What is shown only together with the names."""


class AlreadyVotedError(RefusedError):
    """This voter has judged this turn otherwise; a change has to be asked for."""


class NotVotedError(RefusedError):
    """There is no vote to undo."""
