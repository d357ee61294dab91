"""The body of a request, bounded in size and time."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request


class BodyError(Exception):
    """The body could not be read.

    Args:
        status: to answer with.
        reason: a line that says why.
    """

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


async def read_body(request: Request, bytes_max: int, timeout_s: float) -> bytes:
    """Read the whole body.

    Args:
        request: with the body.
        bytes_max: what the body may hold.
        timeout_s: how long the body may take to come.

    Raises:
        BodyError: the body is too large, is compressed, or did not come in time.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise BodyError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a body must not be compressed")
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
