"""Cases that one test goes through with the same fixtures, where these take longer than the cases."""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any

from _pytest.mark import ParameterSet


def each(names: str | Sequence[str], cases: Collection[Any]) -> Callable[[Callable[..., Any]], Any]:
    """Call the decorated test for each of `cases`, as `pytest.mark.parametrize` does, but as one test.

    The test must leave its fixtures as they were. A failure names its case.
    """
    ours = [names] if isinstance(names, str) else list(names)

    def decorate(test: Callable[..., Any]) -> Any:
        if inspect.iscoroutinefunction(test):

            @wraps(test)
            async def run(**fixtures: Any) -> None:
                for case in cases:
                    with _named(case):
                        await test(**fixtures, **_arguments(ours, case))

        else:

            @wraps(test)
            def run(**fixtures: Any) -> None:
                for case in cases:
                    with _named(case):
                        test(**fixtures, **_arguments(ours, case))

        own = inspect.signature(test)
        fixtures = [one for name, one in own.parameters.items() if name not in ours]
        run.__signature__ = own.replace(parameters=fixtures)  # type: ignore[attr-defined]
        return run

    return decorate


def _arguments(names: list[str], case: Any) -> dict[str, Any]:
    values = case.values if isinstance(case, ParameterSet) else case if len(names) > 1 else (case,)
    return dict(zip(names, values, strict=True))


@contextmanager
def _named(case: Any) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        error.add_note(f"in the case {case!r}")
        raise
