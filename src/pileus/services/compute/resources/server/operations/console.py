"""What a server wrote to its console."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pileus.core.context import Context, Request
from pileus.core.errors import BadRequest, Conflict, Unavailable
from pileus.core.fields import Body
from pileus.services.compute.resources.server.operations.row import allow, find, resource
from pileus.services.fleet import interface as fleet


class ConsoleOutput(Body):
    """How much to show: the last `length` lines; all when there is none, or it is negative."""

    length: int | str | None = None


@resource.action(
    "/servers/{server_id}/action",
    "os-getConsoleOutput",
    policy="os_compute_api:os-console-output",
    status=200,
    wraps="output",
)
async def get_console_output(ctx: Request, server_id: str, body: ConsoleOutput) -> str:
    """The last lines of a server's serial console. Raises Conflict when it is on no host, or its host is away."""

    def check(bound: Context) -> sa.Row[Any]:
        row = find(bound, server_id)
        allow(bound, row, "get_console_output")
        return row

    row = await ctx.read(check)
    length = _length(body.length)
    try:
        return await fleet.ask(ctx, row.host_id, "console_log", row.id, {"lines": length})
    except Unavailable as fault:
        raise Conflict(f"Instance {server_id} is not ready: {fault.message}") from None


def _length(given: int | str | None) -> int | None:
    try:
        length = -1 if given is None or given == "" else int(given)
    except ValueError:
        raise BadRequest(f"{given!r} is not a number of lines") from None
    return None if length < 0 else length
