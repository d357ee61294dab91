"""Dependencies: values that a handler needs and a function makes, as in FastAPI."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, get_args, get_origin, overload

from hub.errors import HandlerError
from hub.handlers.conversion import is_scalar

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Dependency:
    """A declared dependency.

    Args:
        function: makes the value; None stands for the annotated class.
        use_cache: whether the value is made once for a call of the handler, wherever it is needed.
    """

    function: Callable[..., Any] | None
    use_cache: bool = True


@overload
def Depends(dependency: Callable[..., AsyncIterator[_T]], *, use_cache: bool = True) -> _T: ...
@overload
def Depends(dependency: Callable[..., Iterator[_T]], *, use_cache: bool = True) -> _T: ...
@overload
def Depends(dependency: Callable[..., Awaitable[_T]], *, use_cache: bool = True) -> _T: ...
@overload
def Depends(dependency: Callable[..., _T], *, use_cache: bool = True) -> _T: ...
@overload
def Depends(dependency: None = None, *, use_cache: bool = True) -> Any: ...
def Depends(dependency: Callable[..., Any] | None = None, *, use_cache: bool = True) -> Any:  # noqa: N802 - as in FastAPI
    """Declare that a parameter of a handler, or of another dependency, is made by a function.

    The function takes the event, parameters of the handler's pattern, and other dependencies. A function that
    is not `async` runs in a thread. What follows its `yield`, if it has one, runs after the handler.

    Args:
        dependency: the function or class; None for the class that the parameter is annotated with.
        use_cache: whether the value is made once for a call of the handler, wherever it is needed.
    """
    return Dependency(dependency, use_cache)


def dependency_of(default: Any, annotation: Any) -> Dependency | None:
    """The dependency that a parameter declares by its default or by `Annotated`; None if it declares none.

    Raises:
        HandlerError: the parameter is one of a FastAPI endpoint, which a handler cannot have. The text is the
            end of a sentence about the parameter.
    """
    declared = [default]
    if get_origin(annotation) is Annotated:
        declared += reversed(get_args(annotation)[1:])
    for each in declared:
        found = each if isinstance(each, Dependency) else _of_fastapi(each)
        if found is not None:
            return found if found.function is not None else Dependency(_made(annotation), found.use_cache)
    return None


def _of_fastapi(declared: Any) -> Dependency | None:
    """The dependency that FastAPI's `Depends` declares. FastAPI is not imported for it."""
    params = sys.modules.get("fastapi.params")
    if params is None:
        return None
    if isinstance(declared, params.Depends):
        if getattr(declared, "scopes", None) or getattr(declared, "max_concurrency", None):
            raise HandlerError("has scopes or max_concurrency, which need FastAPI: use hub.Depends")
        return Dependency(declared.dependency, declared.use_cache)
    if isinstance(declared, params.Param | params.Body):
        raise HandlerError(
            f"is FastAPI's {type(declared).__name__}, which reads an HTTP request, and a handler has none:"
            " take the event or the payload"
        )
    return None


def _made(annotation: Any) -> type:
    """The class that `Depends()` makes an object of."""
    plain = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
    if not isinstance(plain, type) or plain is Any or is_scalar(plain):
        raise HandlerError("has a Depends without a function, and is no object of a class: name the function")
    return plain
