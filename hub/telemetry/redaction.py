"""Text without the secrets that may be in it: tokens, credentials and the query of a URL."""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "[hidden]"

_TOKEN: Final = re.compile(r"eyJ[\w-]{8,}={0,2}(?:\.[\w-]*={0,2})*")
_URL: Final = re.compile(r"(?<=://)\S+")
_QUERY: Final = re.compile(r"\?\S+")
_CREDENTIALS: Final = re.compile(r"\b(bearer|basic|apikey)\s+\S+", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Hide tokens, credentials, the user and password of URLs, and the queries of URLs."""
    text = _TOKEN.sub("[token]", text)
    text = _CREDENTIALS.sub(rf"\1 {HIDDEN}", text)
    text = _URL.sub(_without_user, text)
    return _QUERY.sub(f"?{HIDDEN}", text)


def _without_user(url: re.Match[str]) -> str:
    # A password that is not percent-encoded may hold any character: the last @ ends it.
    _, at, rest = url[0].rpartition("@")
    return f"{HIDDEN}@{rest}" if at else rest
