"""What every command shares: errors as one line with an exit status, help that reads well, output folder, progress."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import RunFailed, UserError
from pipeline.progress import alive

if TYPE_CHECKING:
    from rich.table import Table

WORD = 16  # characters of a column's longest word that are kept on one line
GAP = 2  # between columns
OUT = Path("out")  # the output folder where none is named


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps paragraphs and examples of descriptions as written, with room for option names."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=min(110, _columns()))


class Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line and exit status 2."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("formatter_class", HelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; overrides may stand behind options too, which it would call unrecognised."""
        found, left = super().parse_known_args(args, namespace)
        if any(action.dest == "overrides" for action in self._actions):
            found.overrides = [*found.overrides, *(word for word in left if not word.startswith("-"))]
            left = [word for word in left if word.startswith("-")]
        return found, left

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{message} (see {self.prog} --help)")


def add_only(parser: argparse.ArgumentParser) -> None:
    """--only: arms of a study by level or name (`StudyManifest.matching`), as `args.only`."""
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="FACTOR=LEVEL",
        help="only arms with this level (or an arm, by its name); repeat for more: levels of one factor are alternatives",
    )


def run_main(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> int:
    """Parse, call the sub-command's `func(args) -> int`, and turn errors into one line on stderr.

    Exit status: 0 done, 1 something that ran has failed, 2 the user's input is wrong, 130 interrupted.
    """
    try:
        args = parser.parse_args(argv)
        if not hasattr(args, "func"):
            parser.print_help()
            return 2
        func: Callable[[argparse.Namespace], int] = args.func
        serves = "serves" in args and args.serves  # waits for people: its silence is no work
        with nullcontext() if serves else alive(_command(parser.prog, argv)):
            return func(args)
    except (UserError, RunFailed) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _command(prog: str, argv: Sequence[str] | None) -> str:
    """The room and the sub-command, for people: "pipeline train"."""
    given = sys.argv[1:] if argv is None else argv
    return " ".join((prog.split()[-1], *given[:1]))


def add_out(parser: argparse.ArgumentParser) -> None:
    """The option every command has: where runs, studies and reports lie."""
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="DIR",
        help="folder of runs, studies and reports (default: out)",
    )


def add_tuning(parser: argparse.ArgumentParser) -> None:
    """The option of commands that invert photos: whether weights follow them."""
    parser.add_argument(
        "--tuning-steps",
        type=int,
        metavar="N",
        help="of families that invert photos: steps of pivotal tuning a photo (default: the protocol's, 0)",
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Hydra overrides as the rest of the command line."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="config overrides, for instance model=spade preset=small seed=1",
    )


def _columns() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def text_table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    width: int,
    spare: Sequence[str] = (),
    right: Sequence[str] = (),
) -> Table:
    """A plain table of texts (markup allowed) for a terminal of `width` characters; cells wrap between words.

    Where the words of all columns do not fit side by side, columns in `spare` go, in this order, and the caption names them.
    `right`: columns of numbers.
    """
    from rich.table import Table
    from rich.text import Text

    longest = [
        min(max(len(word) for text in texts for word in (*Text.from_markup(text).plain.split(), "")), WORD)
        for texts in zip(columns, *rows, strict=True)
    ]
    shown = list(range(len(columns)))
    left_out: list[str] = []

    def fits() -> bool:
        return sum(longest[index] for index in shown) + GAP * (len(shown) - 1) <= width

    for name in spare:
        if not fits() and name in columns:
            shown = [index for index in shown if columns[index] != name]
            left_out.append(name)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
    for index in shown:
        side: Literal["left", "right"] = "right" if columns[index] in right else "left"
        table.add_column(columns[index], overflow="fold", justify=side, min_width=longest[index] if fits() else None)
    for row in rows:
        table.add_row(*(row[index] for index in shown))
    if left_out:
        table.caption = f"no room for {', '.join(left_out)}"
    return table
