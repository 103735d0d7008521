"""Acts on a battle that the store does not accept, one named error each; knows no cause."""

from __future__ import annotations

from typing import ClassVar

from arena.errors import ArenaError


class RefusedError(ArenaError):
    """An act the store does not accept; `status` is the HTTP status that fits it."""

    status: ClassVar[int] = 409


class UnknownBattleError(RefusedError):
    """No battle of this id, or a turn it does not have."""

    code = "unknown_battle"

    status = 404


class WrongTokenError(RefusedError):
    """Neither the battle's secret nor its owner."""

    code = "not_yours"

    status = 403


class SideFailedError(RefusedError):
    """A side has no answer to judge: it failed or was never asked."""

    code = "side_failed"


class UnfinishedError(RefusedError):
    """A side is still writing and the vote was not marked as given before the end."""

    code = "unfinished"


class StillBlindError(RefusedError):
    """What is shown only together with the names."""

    code = "still_blind"


class AlreadyVotedError(RefusedError):
    """This voter has judged this turn otherwise; a change has to be asked for."""

    code = "already_voted"


class NotVotedError(RefusedError):
    """There is no vote to undo."""

    code = "not_voted"
