"""`python -m pipeline weights list|check|fetch`: the weight files that metrics and losses need."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.cli import add_out, add_overrides
from pipeline.errors import UserError


def register(subparsers: Any) -> None:
    """Add the command to the sub-parsers of `python -m pipeline`."""
    parser = subparsers.add_parser(
        "weights",
        help="list, check or fetch the weight files of metrics and losses",
        description="Weight files of metrics and losses. Without a network, put the files into a folder yourself and name it\n"
        "with --dir here and protocol.weights_dir=DIR elsewhere.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, text in (
        ("list", "which metric or loss needs which file, from where, and what is here"),
        ("check", "verify digests and shapes of what is here; exit status 2 when a file is refused"),
        ("fetch", "download what is missing and verify it"),
    ):
        sub = actions.add_parser(action, help=text, description=text)
        sub.add_argument(
            "--dir", metavar="DIR", help="folder searched before torch's hub cache (fetch: where files go)"
        )
        if action == "fetch":
            sub.add_argument("names", nargs="*", metavar="NAME", help="files to fetch (default: everything missing)")
        sub.set_defaults(func=run)
    release = actions.add_parser(
        "import",
        help="turn a released checkpoint into a run that evaluate, edit and tables treat like any other",
        description="The authors' own weights as a run of kind `released`. KEY=VALUE chooses the data it is evaluated on, for\n"
        "instance data=celebamask_hq data.root=DIR.",
    )
    release.add_argument("family", metavar="FAMILY", help="ca2sis, spade, sean, ...")
    release.add_argument(
        "file", type=Path, metavar="FILE", help="the generator's checkpoint, for instance latest_net_G.pth"
    )
    release.add_argument(
        "--encoder",
        type=Path,
        metavar="FILE",
        help="image encoder in a file of its own (SPADE, V-INADE): latest_net_E.pth",
    )
    add_overrides(release)
    add_out(release)
    release.set_defaults(func=run_import)
    convert = actions.add_parser(
        "convert",
        help="take one network's tensors out of a training checkpoint that import refuses",
        description="For checkpoints that pickle an argparse.Namespace beside their networks (SemanticStyleGAN). Nothing in FILE\n"
        "is executed: tensors, plain containers and that one class are read, a file with anything else is refused.",
    )
    convert.add_argument(
        "file", type=Path, metavar="FILE", help="the checkpoint, for instance CelebAMask-HQ-512x512.pt"
    )
    convert.add_argument("target", type=Path, metavar="TARGET", help="file to write: a state dict of tensors alone")
    convert.add_argument("--network", default="g_ema", metavar="NAME", help="which of its networks (default: g_ema)")
    convert.set_defaults(func=run_convert)


def run_import(args: argparse.Namespace) -> int:
    """`weights import`: a record out of a downloaded checkpoint."""
    from pipeline.records import RunStore
    from pipeline.runs.released import import_release

    record = import_release(args.family, args.file, args.encoder, args.overrides, RunStore(args.out / "runs"))
    print(f"record: {record.path}")
    print(f"next: python -m pipeline evaluate {record.id[:10]} --protocol paper")
    return 0


def run_convert(args: argparse.Namespace) -> int:
    """`weights convert`: a file of plain tensors out of a training checkpoint."""
    from pipeline.runs.released import extract_network

    count = extract_network(args.file, args.network, args.target, [argparse.Namespace])
    print(f"{count} tensors of {args.network}: {args.target}")
    return 0


def run(args: argparse.Namespace) -> int:
    """Carry out one action; returns the exit status."""
    return {"list": _list, "check": _check, "fetch": _fetch}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from pipeline import weights

    for check in weights.check_all(args.dir):
        file = check.file
        print(f"{file.name}: {check.state}")
        print(f"  for     {', '.join(file.used_by)}")
        print(f"  file    {file.filename}  sha256 {file.sha256}{'' if len(file.sha256) == 64 else '...'}")
        print(f"  from    {file.url or 'package ' + file.package}")
        if check.state == "ok":
            print(f"  found   {check.detail}")
        else:
            print(f"  looked  {', '.join(str(path) for path in weights.places(file, args.dir))}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from pipeline import weights

    checks = weights.check_all(args.dir)
    for check in checks:
        print(f"{check.state:<8} {check.file.name:<11} {check.detail}")
    return 2 if any(check.state == "refused" for check in checks) else 0


def _fetch(args: argparse.Namespace) -> int:
    from pipeline import weights
    from pipeline.progress import shown

    folder = Path(args.dir) if args.dir else weights.hub_folder()
    states = {check.file.name: check.state for check in weights.check_all(args.dir)}
    names = args.names or [name for name, state in states.items() if state != "ok" and weights.FILES[name].url]
    unknown = [name for name in names if name not in weights.FILES]
    if unknown:
        raise UserError(f"unknown weights {', '.join(unknown)}; there are: {', '.join(weights.FILES)}")
    for name in names:
        with shown() as progress:
            progress.start(f"fetch {name}", 0)
            path = weights.fetch(name, folder, lambda done, total, bar=progress: bar.update(done))  # type: ignore[misc]
        print(f"{name}: {path}")
    if not names:
        print("nothing is missing")
    return 0
