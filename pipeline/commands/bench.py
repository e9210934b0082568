"""`python -m pipeline bench`: measure this machine."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pipeline.cli import add_overrides
from pipeline.errors import UserError

PAPER = ("preset=paper", "train.batch_size=1", "threads=2", "loss.perceptual.weight=0")  # no VGG weights needed
# Name, what, overrides: the results that docs/performance/tables.md shows.
PUBLISHED: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ca2sis-paper", "modes", PAPER),
    ("ca2sis-paper-checkpointing", "modes", (*PAPER, "model.checkpointing=true")),
    ("sean-paper", "modes", ("model=sean", *PAPER)),
    ("ca2sis-tiny", "modes", ()),
    ("parts-ca2sis-paper", "parts", PAPER),
    ("parts-ca2sis-small", "parts", ("preset=small",)),
    ("parts-ca2sis-tiny", "parts", ()),
    ("data", "data", ("size=64",)),
    ("eval", "eval", ("protocol=standard", "data.train_images=512", "data.test_images=128")),
    ("launch", "launch", ()),
    ("study", "study", ()),
    ("frame", "frame", ()),
)
COUNTS = (10, 100, 1000, 10000)
JOBS = (1, 2)
SIDES = (4, 16, 32, 64, 160, 256)  # of maps whose accuracy is measured; a kernel takes those it has


def register(subparsers: Any) -> None:
    """Add `bench` to `python -m pipeline`."""
    bench = subparsers.add_parser(
        "bench",
        help="measure this machine: training step, feeding, evaluation, starting, studies, reading",
        description="Benchmarks. Each prints a table and writes JSON with --json; ratios are medians of paired repeats.",
    )
    bench.add_argument("--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="ratios between two results")
    bench.set_defaults(func=run_compare)
    kinds = bench.add_subparsers(title="benchmarks", metavar="WHAT", parser_class=type(bench))

    step = kinds.add_parser("step", help="a training step, part by part; or naive against fast")
    add_overrides(step)
    step.add_argument(
        "--naive-vs-fast", action="store_true", help="the releases' way of computing against this project's"
    )
    step.add_argument("--repeats", type=_positive, default=5, metavar="N", help="timed repeats (default: 5)")
    _add_json(step)
    step.set_defaults(func=run_step)

    data = kinds.add_parser("data", help="images a second of training batches, by cache and loader processes")
    add_overrides(data)
    data.add_argument("--seconds", type=float, default=3.0, metavar="S", help="of each measurement (default: 3)")
    _add_json(data)
    data.set_defaults(func=run_data)

    evaluation = kinds.add_parser("eval", help="evaluating several arms beside generating their pictures")
    add_overrides(evaluation)
    evaluation.add_argument("--arms", type=_positive, default=6, metavar="N", help="generators (default: 6)")
    _add_json(evaluation)
    evaluation.set_defaults(func=run_eval)

    launch = kinds.add_parser("launch", help="from a command to its first training step")
    launch.add_argument("--repeats", type=_positive, default=5, metavar="N", help="timed repeats (default: 5)")
    _add_json(launch)
    launch.set_defaults(func=run_launch)

    study = kinds.add_parser("study", help="cells an hour of a shipped study, run from nothing")
    study.add_argument("study", nargs="?", default="demo", metavar="STUDY", help="default: demo")
    study.add_argument(
        "--jobs", type=_positive, nargs="+", default=list(JOBS), metavar="N", help="runs at once (default: 1 2)"
    )
    _add_json(study)
    study.set_defaults(func=run_study)

    frame = kinds.add_parser("frame", help="planning, showing, loading and tabulating studies of many runs")
    frame.add_argument(
        "--runs", type=_positive, nargs="+", default=list(COUNTS), metavar="N", help="sizes of the study"
    )
    frame.add_argument("--plot", type=Path, metavar="FILE.png", help="draw seconds against runs")
    _add_json(frame)
    frame.set_defaults(func=run_frame)

    accuracy = kinds.add_parser(
        "accuracy", help="error of every kernel against float64, beside the best float32 form's"
    )
    accuracy.add_argument("--only", nargs="+", metavar="KERNEL", help="kernels by name, as the table has them")
    accuracy.add_argument(
        "--sides", type=_positive, nargs="+", default=list(SIDES), metavar="N", help="of maps (default: all)"
    )
    accuracy.add_argument("--docs", type=Path, metavar="DIR", help="also write the page of the table there (docs)")
    _add_json(accuracy)
    accuracy.set_defaults(func=run_accuracy)

    everything = kinds.add_parser("all", help="all of them, and docs/performance/tables.md")
    everything.add_argument("--docs", type=Path, default=Path("docs"), metavar="DIR", help="default: docs")
    everything.add_argument(
        "--only", nargs="+", metavar="NAME", help=f"of {', '.join(name for name, _, _ in PUBLISHED)}"
    )
    everything.set_defaults(func=run_all)


def run_compare(args: argparse.Namespace) -> int:
    """`bench --compare A B`."""
    from pipeline.bench.text import compare

    if args.compare is None:
        raise UserError(
            "bench needs a benchmark (step, data, eval, launch, study, frame, accuracy, all) or --compare A.json B.json"
        )
    print(compare(*args.compare))
    return 0


def run_step(args: argparse.Namespace) -> int:
    """`bench step`."""
    return _show(args, measure("modes" if args.naive_vs_fast else "parts", args.overrides, args.repeats))


def run_data(args: argparse.Namespace) -> int:
    """`bench data`."""
    from pipeline.bench.around import feeding

    return _show(args, feeding(args.overrides, lasting=args.seconds))


def run_eval(args: argparse.Namespace) -> int:
    """`bench eval`."""
    from pipeline.bench.around import evaluating

    return _show(args, evaluating(args.overrides, arms=args.arms))


def run_launch(args: argparse.Namespace) -> int:
    """`bench launch`."""
    return _show(args, measure("launch", (), args.repeats))


def run_frame(args: argparse.Namespace) -> int:
    """`bench frame`."""
    from pipeline.bench.scale import plot, scaling

    result = scaling(counts=args.runs)
    if args.plot is not None:
        plot(result, args.plot)
    return _show(args, result)


def run_study(args: argparse.Namespace) -> int:
    """`bench study`."""
    from pipeline.bench.around import studying

    return _show(args, studying(args.study, args.jobs))


def run_accuracy(args: argparse.Namespace) -> int:
    """`bench accuracy`."""
    from pipeline.bench.accuracy.kernels import KERNELS
    from pipeline.bench.accuracy.measure import table
    from pipeline.bench.page import ACCURACY_HEAD, write_tables

    names = [kernel.name for kernel in KERNELS]
    unknown = sorted(set(args.only or ()) - set(names))
    if unknown:
        raise UserError(f"--only {unknown[0]!r}: allowed are {', '.join(map(repr, names))}")
    chosen = [kernel for kernel in KERNELS if args.only is None or kernel.name in args.only]
    page = None if args.docs is None else args.docs / "performance" / "accuracy_table.md"
    if page is not None:
        write_tables(page, ["accuracy"], ACCURACY_HEAD)  # a page that cannot be written is said now
    result = table(chosen, args.sides, lambda name: print(f"measuring {name} ...", flush=True))
    if page is not None:
        _write(page.with_name("accuracy.json"), result)
        write_tables(page, ["accuracy"], ACCURACY_HEAD)
    return _show(args, result)


def run_all(args: argparse.Namespace) -> int:
    """`bench all`: measure, keep the JSON beside the page of tables, and write that.

    Each in a fresh process, as its own command does: what one leaves in memory slows the next.
    """
    from pipeline.bench.page import write_tables
    from pipeline.bench.processes import in_own_process

    names = [name for name, _, _ in PUBLISHED]
    unknown = sorted(set(args.only or ()) - set(names))
    if unknown:
        raise UserError(f"--only {unknown[0]}: allowed are {', '.join(names)}")
    page = args.docs / "performance" / "tables.md"
    folder = page.parent
    write_tables(page, names)  # a page that cannot be written is said now, not after the first measurement
    for name, what, overrides in PUBLISHED:
        if args.only is None or name in args.only:
            print(f"measuring {name} ...", flush=True)
            result = in_own_process(measure, what, overrides, 5)
            _write(folder / f"{name}.json", result)
            if what == "frame":
                from pipeline.bench.scale import plot

                plot(result, folder / f"{name}.png")
            write_tables(page, names)
    return 0


def measure(what: str, overrides: Any, repeats: int) -> dict[str, Any]:
    """One result by its kind."""
    if what == "modes":
        from pipeline.bench.modes import naive_against_fast

        return naive_against_fast(overrides, pairs=repeats)
    if what == "parts":
        from pipeline.bench.parts import step_parts

        return step_parts(overrides, repeats=repeats)
    if what == "frame":
        from pipeline.bench.scale import scaling

        return scaling(counts=COUNTS)
    from pipeline.bench import around

    if what == "data":
        return around.feeding(overrides, lasting=3.0)
    if what == "eval":
        return around.evaluating(overrides, arms=6)
    return around.starting(repeats=repeats) if what == "launch" else around.studying("demo", JOBS)


def _show(args: argparse.Namespace, result: dict[str, Any]) -> int:
    from pipeline.bench.text import as_text

    print(as_text(result))
    if args.json is not None:
        _write(args.json, result)
    return 0


def _write(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value
