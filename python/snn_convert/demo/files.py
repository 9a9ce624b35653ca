"""Files of the demo: written whole or not at all."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..files import replacing

__all__ = ["OutputError", "prepare_folder", "write_bytes", "write_text"]


class OutputError(Exception):
    """The output folder cannot be written; the message is for the user."""


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a temporary file beside ``path`` and renames it: nobody ever reads half a file.

    Raises:
        OutputError: the file cannot be written; what was at ``path`` is still there.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """:func:`write_bytes` of ``text`` as UTF-8."""
    write_bytes(path, text.encode())


def prepare_folder(path: Path) -> Path:
    """Makes the folder and proves that files can be written there, before anything long starts.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise OutputError(f"cannot write to the output folder {path}: {error.strerror or error}") from error
    return path
