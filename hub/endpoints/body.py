"""The body of a request, bounded in size and time."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request


class BodyError(Exception):
    """The body was not had.

    Args:
        status: to answer with.
        reason: a line that says why.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


async def read_body(request: Request, bytes_max: int, timeout_s: float) -> bytes:
    """The whole body.

    Raises:
        BodyError: it is too large, or did not come, or not in time.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > bytes_max:
                    raise BodyError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a body is at most {bytes_max} bytes"
                    )
                chunks.append(chunk)
    except TimeoutError:
        raise BodyError(HTTPStatus.REQUEST_TIMEOUT, f"the body took over {timeout_s:g} s") from None
    except ClientDisconnect:
        raise BodyError(HTTPStatus.BAD_REQUEST, "the client is gone") from None
    return b"".join(chunks)
