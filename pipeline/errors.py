"""What goes wrong through the user's hands, as types: the command line turns each into one line and an exit status."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in a config, a file or a command line: one clear line that names it, exit status 2, no traceback."""

    exit_status = 2


class RunFailed(Exception):
    """A run that was started properly and failed on its own (for instance diverged): one line, exit status 1."""

    exit_status = 1


def nearest(word: str, allowed: list[str] | tuple[str, ...], count: int = 3) -> str:
    """Return the text " (did you mean ...?)" with the allowed words closest to `word`, or "" when none is close."""
    import difflib

    close = difflib.get_close_matches(word, list(allowed), n=count, cutoff=0.5)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
