"""What may leave this machine: regular files of the model folder, pictures that are pictures, text without secrets."""

from __future__ import annotations

import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import get_token
from safetensors import SafetensorError, safe_open

from ..errors import HubError
from ..machine import expanded

__all__ = ["check_binary_file", "check_file_of_folder", "check_text"]

# A token may stand inside a longer name (`my_hf_…`), so only those whose prefix is short ask for a boundary before it.
SECRETS = {
    "an access token of the Hugging Face Hub": r"hf_[A-Za-z0-9]{16,}",
    "an access key of AWS": r"(?:AKIA|ASIA)[A-Z0-9]{16}",
    "an access token of GitHub": r"gh[opsur]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}",
    "an access token of GitLab": r"glpat-[A-Za-z0-9_-]{16,}",
    "an access token of Slack": r"xox[abeoprs]-[A-Za-z0-9-]{10,}",
    "an API key of Google": r"AIza[A-Za-z0-9_-]{35}",
    "an API key": r"(?<![A-Za-z0-9])sk-[A-Za-z0-9_-]{20,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
}
PLACES = re.compile(
    r"(?<![\w.])(?:/(?:home|Users|mnt|media|Volumes|tmp)/|/root(?![\w.-])/?|[A-Za-z]:\\+Users\\+)[\w.-]*[^\s\"'`)<>]*"
)
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def check_file_of_folder(file: Path) -> None:
    """Refuses what is not a regular file of its folder.

    The one kind of link that may leave is that of the Hub's own cache, from `snapshots/COMMIT/` to `blobs/`.

    Raises:
        HubError: A link to a file elsewhere, a device, a pipe, or another thing that is no file.
    """
    if file.is_symlink():
        repository = file.parent.resolve().parent.parent
        target = file.resolve()
        of_the_cache = file.parent.resolve().parent.name == "snapshots" and target.parent == repository / "blobs"
        if not (of_the_cache and target.is_file()):
            raise HubError(
                f"{file} is a link to {target}, and only files of the model folder itself are uploaded: put a copy in "
                "its place, or remove the link"
            )
    elif not stat.S_ISREG(file.stat().st_mode):
        raise HubError(f"{file} is not a regular file; remove it from the model folder before the push")


def check_binary_file(file: Path) -> None:
    """Refuses a picture that is no whole PNG file, and weights that are no safetensors file.

    Raises:
        HubError: It is something else under this name, or it is damaged; or the weights' description holds a secret.
    """
    if file.suffix == ".png":
        if not _is_png(file.read_bytes()):
            raise HubError(f"{file} is not a PNG picture; remove it from the model folder before the push")
        return
    try:
        with safe_open(file, "np") as opened:
            notes = opened.metadata() or {}
    except SafetensorError as error:
        raise HubError(f"{file} is not a whole safetensors file ({error})") from error
    check_text(file, "\n".join(f"{name}: {value}" for name, value in notes.items()))


def _is_png(content: bytes) -> bool:
    """Whether these are the chunks of one PNG picture with right checksums, and nothing after them."""
    if not content.startswith(PNG_SIGNATURE):
        return False
    place = len(PNG_SIGNATURE)
    kind = b""
    while place + 12 <= len(content) and kind != b"IEND":
        size = int.from_bytes(content[place : place + 4], "big")
        kind, end = content[place + 4 : place + 8], place + 8 + size
        if zlib.crc32(content[place + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            return False
        place = end + 4
    return kind == b"IEND" and place == len(content)


def check_text(file: Path, text: str) -> None:
    """Refuses text with a token, a key, or a path of this machine or of somebody's home.

    Raises:
        HubError: The message names the file, the line, what kind of secret stands there and how it begins.
    """
    for what, found, line in _private(file, text):
        raise HubError(f"{file} holds {what} in line {line} ({found}): take it out before the push")


def _private(file: Path, text: str) -> Iterator[tuple[str, str, int]]:
    """What must not leave, how it may be shown, and its line."""

    def line(start: int) -> int:
        return text.count("\n", 0, start) + 1

    for what, pattern in SECRETS.items():
        for match in re.finditer(pattern, text):
            yield what, f"{match[0][:8]}…", line(match.start())
    token = get_token()
    if token and token in text:
        yield "an access token, that of this login,", f"{token[:4]}…", line(text.index(token))
    for path in (file.parent.resolve(), Path.cwd(), expanded("~")):
        if len(path.parts) > 2 and str(path) in text:
            yield "a path of this machine", str(path), line(text.index(str(path)))
    for match in PLACES.finditer(text):
        yield "a path of this machine", match[0], line(match.start())
