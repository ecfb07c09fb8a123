"""What to do about an error of the Hub's client, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .errors import GlintRUError, HubError

__all__ = ["first_line", "hub_advice", "hub_errors"]

LOGIN = "log in with `hf auth login` or set HF_TOKEN"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its name where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def hub_errors(name: str, revision: str | None = None, *, writing: bool = False) -> Iterator[None]:
    """Turns the client's errors into one line: what to do, and what the client said.

    Args:
        name: The repository, for the message.
        revision: The branch or commit that was asked for.
        writing: Whether the Hub was to be changed.

    Raises:
        HubError: In place of the client's own error, which is its cause.
    """
    try:
        yield
    except GlintRUError:
        raise
    except Exception as error:
        advice = hub_advice(error, name, revision, writing)
        if advice is None:
            raise
        raise HubError(f"{advice} ({first_line(error).rstrip('.')})") from error


def hub_advice(
    error: BaseException | None, name: str, revision: str | None = None, writing: bool = False
) -> str | None:
    """What to do about an error of the client, or of a library that had one from the client; None where unknown."""
    while error is not None:
        if (advice := _advice(error, name, revision, writing)) is not None:
            return advice
        error = error.__cause__ or error.__context__
    return None


def _advice(error: BaseException, name: str, revision: str | None, writing: bool) -> str | None:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, GatedRepoError):
        return f"{name} is gated: ask for access on its page, then {LOGIN}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"{name} is not on the Hub, or it is private: check the name, and {LOGIN} with an account that may see it"
        )
    if isinstance(error, RevisionNotFoundError):
        return f"{name} has no revision {revision or 'main'!r}: give a branch or a commit that it has, or leave it out"
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return f"the Hub does not know who asks for {name}: {LOGIN}"
    if status == 403:
        right = "write" if writing else "read"
        return f"this login may not {right} {name}: take a token with the right to {right}, or another repository"
    if status == 412:
        return f"{name} was changed by somebody else meanwhile: push again"
    if isinstance(error, HFValidationError):
        return f"{name!r} is no name of a repository, which is owner/name"
    if status is not None:
        return f"the Hub did not do what was asked for {name}: try again later"
    # httpx, whose name moved, is the client's HTTP library.
    network = isinstance(error, ConnectionError) or type(error).__module__.partition(".")[0] in ("httpx", "httpx2")
    if network or isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError)):
        instead = "" if writing else f", or fetch it once with a connection: hf download {name}"
        return f"the Hub cannot be reached for {name}: check the network, HF_ENDPOINT and HF_HUB_OFFLINE{instead}"
    return None
