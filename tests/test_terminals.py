"""Tables on a terminal of 40 columns: they wrap, or leave columns out and say so; nothing is wider."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.cli import text_table
from tests.analysis.synthetic import make_study

COLUMNS = 40


def on_a_terminal(*words: str) -> list[str]:
    """The lines that `python -m ...` prints on a terminal of 40 columns, without colours."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.pop("COLUMNS", None)
        os.environ["TERM"] = "xterm"
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        os.execv(sys.executable, [sys.executable, "-m", *words])
    printed = b""
    try:
        while part := os.read(terminal, 1 << 16):
            printed += part
    except OSError:  # the other end is closed
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, printed.decode()
    os.close(terminal)
    printed = re.sub(rb"[^\n]*\r\x1b\[2K", b"", printed)  # the sign of life, taken away again
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", printed.decode()).splitlines()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out")
    make_study(folder)
    return folder


@pytest.mark.parametrize(
    ("words", "held"),
    [
        (("analysis", "table", "synthetic"), ("PSNR [dB] ↑", "CA²-SIS", "19.82 ± 0.21 ①")),
        (("analysis", "compare", "synthetic"), ("difference", "7.351e-05", "no room for")),
        (("ablations", "status", "synthetic"), ("finished", "SPADE", "15 finished; no room for")),
        (("pipeline", "model", "preset=tiny"), ("encoder.first", "parameters", "no room for output")),
    ],
    ids=lambda item: " ".join(item[:2]),
)
def test_a_narrow_terminal_holds_every_table(out: Path, words: tuple[str, ...], held: tuple[str, ...]) -> None:
    lines = on_a_terminal(*words, "--out", str(out))
    prose = ("PSNR [dB] of", "! Fewer", "Descriptive: ", "n = ")  # lines of text, which the terminal itself wraps
    assert max(len(line) for line in lines if not line.startswith(prose)) <= COLUMNS
    for text in held:
        assert text in "\n".join(lines)


@pytest.mark.parametrize("width", range(30, 90, 10))
def test_columns_go_in_the_order_that_is_given_and_are_named(width: int) -> None:
    rows = [("a long name of an arm", "0", "0123456789", "finished"), ("b", "11", "abcdefghij", "[red]failed[/red]")]
    columns = ("arm", "seed", "run", "state")
    table = text_table(columns, rows, width=width, spare=("run", "seed"), right=("seed",))
    console = Console(width=width, file=open(os.devnull, "w"), record=True)  # noqa: SIM115, PTH123
    console.print(table)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert all(word in text for word in ("finished", "failed", "long", "arm"))
    fits = width >= 4 + 4 + 10 + 8 + 3 * 2  # the longest word of each column, and gaps
    assert ("0123456789" in text) == fits == ("no room for run" not in text)


def on_a_pty(code: str) -> str:
    """What a Python program prints on a terminal, control characters and all."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ["TERM"] = "xterm"
        os.execv(sys.executable, [sys.executable, "-c", code])
    printed = b""
    try:
        while part := os.read(terminal, 1 << 16):
            printed += part
    except OSError:
        pass
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, printed.decode()
    os.close(terminal)
    return printed.decode().replace("\r\n", "\n")


def test_a_silent_command_says_on_a_terminal_that_it_lives_and_the_word_goes_before_the_next_line() -> None:
    printed = on_a_pty(
        "import sys, time; from pipeline import progress; progress.PATIENCE_S = 0.2\n"
        "with progress.alive('pipeline train'):\n"
        "    time.sleep(0.6); print('numbers'); print('half', end=''); time.sleep(0.6); print(' line', file=sys.stderr)\n"
        "time.sleep(0.4)"
    )
    word, numbers = printed.split("numbers\n")
    assert re.fullmatch(r"(\r\x1b\[2Kpipeline train is at work, \d+ s)+\r\x1b\[2K", word)
    assert numbers == "half line\n"  # nobody writes into a line that has begun, nor after the end


def test_every_command_is_watched_on_a_terminal_but_those_that_wait_for_people() -> None:
    code = (
        "import time; from pipeline import cli, progress; progress.PATIENCE_S = 0.2\n"
        "parser = cli.Parser(prog='python -m sweeps'); parser.add_argument('word')\n"
        "parser.set_defaults(func=lambda args: time.sleep(0.6) or 0{more})\n"
        "raise SystemExit(cli.run_main(parser, ['plots']))"
    )
    assert on_a_pty(code.format(more=", serves=True")) == ""
    printed = on_a_pty(code.format(more=""))
    assert "sweeps plots is at work, " in printed and printed.endswith("\r\x1b[2K")
