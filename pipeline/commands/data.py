"""`python -m pipeline data prepare | check | show | speed`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli import Parser
from pipeline.provenance import cpu_count

if TYPE_CHECKING:
    from pipeline.data.check import Report

_SHOWN_FILES = 5
_DESCRIPTION = """\
Real data sets: from the layout you downloaded to one that trains.

  python -m pipeline data prepare celebamask_hq --from CelebAMask-HQ --to data/celebamask_hq
  python -m pipeline data check data/celebamask_hq            what is wrong with it, file by file
  python -m pipeline data show data/celebamask_hq             photos, label maps, overlays, legend as one PNG
  python -m pipeline train data=celebamask_hq data.root=data/celebamask_hq

Expected trees, licences, disk and time of every data set: docs/data.md."""


def register(subparsers: Any) -> None:
    """Add `data` and its sub-commands to `python -m pipeline`."""
    parser = subparsers.add_parser("data", help="prepare, check and show data sets", description=_DESCRIPTION)
    inner = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser, required=True)
    _add_prepare(inner)
    _add_check(inner)
    _add_show(inner)
    _add_speed(inner)


def _add_prepare(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "prepare",
        help="from the downloaded layout to ours (can be interrupted and run again)",
        description="Verify every file, convert labels to class indices, merge part masks, write splits and a manifest.\n"
        "Run it again after an interruption: it goes on where it stopped and ends with the same manifest.",
    )
    parser.add_argument(
        "name", metavar="NAME", help="celebamask_hq, ade20k, deepfashion, cityscapes, coco_stuff or folder"
    )
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="RAW", help="the downloaded folder")
    parser.add_argument("--to", dest="target", type=Path, required=True, metavar="ROOT", help="the folder to write")
    parser.add_argument(
        "--group",
        metavar="RULE",
        help="samples that stay in one split, such as frames of one video: a pattern of their names with one pair of brackets, "
        "'^(.+)_[0-9]+$', or a CSV file (name,group)",
    )
    own = parser.add_argument_group("of `folder`: files as you have them (docs/data.md, Your own photos)")
    own.add_argument("--images", default="images", metavar="DIR", help="the photos, below RAW (default: images)")
    own.add_argument(
        "--labels",
        default="labels",
        metavar="DIR",
        help="the label maps, below RAW, or one COCO file (default: labels)",
    )
    own.add_argument("--palette", type=Path, metavar="CSV", help="label maps are colours: name,red,green,blue")
    own.add_argument(
        "--tolerance", type=_byte, default=0, metavar="N", help="colours may differ by so much a channel (default: 0)"
    )
    own.add_argument("--mat-key", metavar="NAME", help="label maps are MATLAB files; the variable that holds the ids")
    own.add_argument(
        "--classes", type=Path, metavar="FILE", help="class names in the order of the ids, or a CSV (id,name)"
    )
    own.add_argument("--merge", type=Path, metavar="CSV", help="classes to take together: from,to")
    _add_space(parser)
    _add_workers(parser)
    parser.set_defaults(func=_prepare)


def _add_check(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "check",
        help="look at every file and say what is wrong",
        description="Exit status: 0 nothing worse than warnings, 1 errors were found, 2 there is nothing to check.",
    )
    parser.add_argument("root", type=Path, metavar="ROOT", help="a prepared or a downloaded data set")
    parser.add_argument("--data", metavar="NAME", help="which data set it is (default: told from its folders)")
    parser.add_argument("--json", action="store_true", help="the whole report as JSON, every file named")
    _add_space(parser)
    _add_workers(parser)
    parser.set_defaults(func=_check)


def _add_show(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "show",
        help="a contact sheet as PNG",
        description="What a network sees of some samples: photo, label map and overlay, with a legend; before them, where\n"
        "photos are cropped, the whole photo with what is cut away dimmed.",
    )
    parser.add_argument("root", metavar="ROOT", help="a prepared or a downloaded data set, or the word procfaces")
    parser.add_argument("--data", metavar="NAME", help="which data set it is (default: told from its folders)")
    parser.add_argument("--split", choices=("train", "val", "test"), default="train", help="default: train")
    parser.add_argument("--count", type=_positive, default=6, metavar="N", help="how many samples (default: 6)")
    parser.add_argument("--size", type=_positive, default=192, metavar="PX", help="short side (default: 192)")
    parser.add_argument("--to", type=Path, metavar="FILE", help="default: out/data/FOLDER.png, by the folder's name")
    parser.add_argument(
        "--aspect", type=_ratio, metavar="R", help="width / height, as data.aspect (default: as in training)"
    )
    _add_space(parser)
    parser.set_defaults(func=_show)


def _add_speed(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "speed",
        help="images a second of feeding, with each cache",
        description="Decoding (or the cache), augmentation, masks and tensors, in one thread, after a first pass.",
    )
    parser.add_argument("root", metavar="ROOT", help="a prepared or a downloaded data set, or the word procfaces")
    parser.add_argument("--data", metavar="NAME", help="which data set it is (default: told from its folders)")
    parser.add_argument("--size", type=_positive, default=256, metavar="PX", help="short side (default: 256)")
    parser.add_argument("--images", type=_positive, default=64, metavar="N", help="train images used (default: 64)")
    parser.add_argument("--batch-size", type=_positive, default=4, metavar="N", help="default: 4")
    parser.add_argument("--seconds", type=_positive, default=3, metavar="S", help="of measuring, each (default: 3)")
    _add_space(parser)
    parser.set_defaults(func=_speed)


def _add_space(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--label-space", metavar="NAME", help="how label values are read, where a data set has several ways: cityscapes_35 "
        "or cityscapes_19; celebamask_hq, celebamask_hq_g_mask or celebamask_13"
    )  # fmt: skip


def _add_workers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--workers", type=_positive, default=cpu_count(), metavar="N", help="threads (default: one a core)"
    )


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return value


def _byte(text: str) -> int:
    value = int(text) if text.isdigit() else -1
    if not 0 <= value <= 255:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 255")
    return value


def _ratio(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.1 < value < 10.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0.1 and 10")
    return value


def _prepare(args: argparse.Namespace) -> int:
    from pipeline.data.prepare import OwnLayout, prepare
    from pipeline.errors import UserError, nearest
    from pipeline.progress import shown
    from pipeline.schema.data import SPACES_OF

    if args.name not in SPACES_OF:
        raise UserError(
            f"data set {args.name}: unknown{nearest(args.name, list(SPACES_OF))}; known: {', '.join(SPACES_OF)}"
        )
    space = args.label_space or SPACES_OF[args.name][0]
    with shown() as progress:
        progress.start(f"prepare {args.name}", 0)
        started = False

        def report(done: int, total: int) -> None:
            nonlocal started
            if not started:
                progress.start(f"prepare {args.name}", total)
                started = True
            progress.update(done)

        layout = OwnLayout(
            args.images, args.labels, args.palette, args.tolerance, args.mat_key, args.classes, args.merge
        )
        result = prepare(
            args.name, args.source, args.target, space_name=space, workers=args.workers, progress=report, layout=layout,
            group=args.group,
        )  # fmt: skip
    fresh = result.samples - result.reused
    print(f"{result.root}: {result.samples} samples ({fresh} prepared now, {result.reused} ready before)")
    for rule, sizes in result.split_sizes.items():
        mark = " (default)" if rule == result.default_split else ""
        print(f"  split {rule}{mark}: {sizes['train']} train, {sizes['val']} val, {sizes['test']} test")
    if result.duplicates:
        print(f"  {result.duplicates} groups of the same photo, kept out of different splits")
    if result.lacking:
        print(f"  classes that a split lacks: {result.lacking}")
    for number, line in enumerate(result.cropping):
        print(f"  {line}{'' if number else ' (default)'}")
    print(f"  manifest {result.manifest_sha256[:16]}")
    stored = "cityscapes_19" if space == "cityscapes_19" else ""  # every other space is the default of its data set
    option = f" data.label_space={stored}" if stored else ""
    print(f"train with: python -m pipeline train data={args.name} data.root={result.root}{option}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from pipeline.data.check import check
    from pipeline.progress import shown

    with shown() as progress:
        started = False

        def report_progress(done: int, total: int) -> None:
            nonlocal started
            if not started:
                progress.start("check", total)
                started = True
            progress.update(done)

        report = check(
            args.root, data=args.data, space_name=args.label_space, workers=args.workers, progress=report_progress
        )
    if args.json:
        print(json.dumps(report.as_dict(), indent=1, ensure_ascii=False))
    else:
        _print_report(report)
    return 0 if report.healthy else 1


def _print_report(report: Report) -> None:
    seen = sum(1 for numbers in report.classes.values() if numbers["images"])
    print(
        f"{report.root}: {report.data} ({report.layout}), {report.samples} samples, label space {report.label_space},"
    )
    print(f"  {seen} of {len(report.classes)} classes occur")
    for finding in report.findings:
        print(f"{finding.severity.upper():8}{finding.message}")
        print(f"        -> {finding.advice}")
        for name in finding.files[:_SHOWN_FILES]:
            print(f"           {name}")
        if len(finding.files) > _SHOWN_FILES:
            print(f"           and {len(finding.files) - _SHOWN_FILES} more (all of them with --json)")
    print("no errors" if report.healthy else "errors were found")


def _show(args: argparse.Namespace) -> int:
    from pipeline.data.build import build_dataset
    from pipeline.data.crop import run_cropping
    from pipeline.data.quick import quick_config
    from pipeline.data.show import show

    cfg = quick_config(
        args.root, data=args.data, space_name=args.label_space, size=args.size, count=args.count, aspect=args.aspect
    )
    path: Path = args.to or Path("out") / "data" / f"{Path(args.root).resolve().name}.png"
    keys = show(build_dataset(cfg, args.split), path, count=args.count)
    print(f"{path}: {len(keys)} samples of {cfg.name}, split {args.split}")
    if said := run_cropping(cfg):
        print(f"  {said}")
    return 0


def _speed(args: argparse.Namespace) -> int:
    import tempfile

    from pipeline.data.quick import quick_config
    from pipeline.data.speed import feeding_speed

    base = quick_config(args.root, data=args.data, space_name=args.label_space, size=args.size, count=args.images)
    with tempfile.TemporaryDirectory(prefix="ca2sis-speed-") as folder:
        print(f"{'cache':10}{'images/s':>10}{'first pass s':>14}")
        for cache in ("none", "memory", "mapped"):
            cfg = base.model_copy(update={"cache": cache, "cache_root": folder, "train_images": args.images})
            speed = feeding_speed(cfg, "train", batch_size=args.batch_size, seconds=float(args.seconds))
            print(f"{cache:10}{speed.images_per_s:10.1f}{speed.first_epoch_s:14.2f}")
    return 0
