"""Weight files that metrics and losses need: which, from where, with which digest, where they are looked for.

Nothing is downloaded unless `fetch` is asked to. A file with another digest or other shapes is refused, never used: a metric
on wrong weights looks like a number. Searched in order: a named folder, torch's hub cache, the installed package that ships it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import UserError
from pipeline.identity import file_digest
from pipeline.records.atomic import reason

if TYPE_CHECKING:
    import torch

TIMEOUT_S = 20.0  # of one network operation
CHUNK_BYTES = 1 << 20
TORCHVISION = "https://download.pytorch.org/models/"
INCEPTION = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt"


@dataclass(frozen=True)
class WeightFile:
    """One file."""

    name: str
    used_by: tuple[str, ...]  # metrics and losses
    filename: str
    sha256: str  # hex; a prefix where the publisher states only that (torchvision's file names)
    kind: Literal["tensors", "torchscript"]
    url: str = ""  # empty: it comes with `package`
    package: str = ""  # installed package that ships it
    inside: str = ""  # path within the package
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()  # some tensors the file must hold


FILES: dict[str, WeightFile] = {
    file.name: file
    for file in (
        WeightFile("alexnet", ("lpips_recon_alex", "lpips_div_alex", "edit_lpips_alex"), "alexnet-owt-7be5be79.pth", "7be5be79",
                   "tensors", TORCHVISION + "alexnet-owt-7be5be79.pth",
                   shapes=(("features.0.weight", (64, 3, 11, 11)), ("features.10.weight", (256, 256, 3, 3)))),
        WeightFile("vgg16", ("lpips_recon_vgg", "dists"), "vgg16-397923af.pth",
                   "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
                   "tensors", TORCHVISION + "vgg16-397923af.pth",
                   shapes=(("features.0.weight", (64, 3, 3, 3)), ("features.28.weight", (512, 512, 3, 3)))),
        WeightFile("vgg19", ("loss.perceptual",), "vgg19-dcbb9e9d.pth", "dcbb9e9d", "tensors", TORCHVISION + "vgg19-dcbb9e9d.pth",
                   shapes=(("features.0.weight", (64, 3, 3, 3)), ("features.34.weight", (512, 512, 3, 3)))),
        WeightFile("inception", ("fid", "kid_x1000"), "inception-2015-12-05.pt",
                   "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4", "torchscript", INCEPTION),
        WeightFile("lpips_alex", ("lpips_recon_alex", "lpips_div_alex", "edit_lpips_alex"), "lpips_alex.pth",
                   "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", "tensors", package="lpips",
                   inside="weights/v0.1/alex.pth", shapes=(("lin0.model.1.weight", (1, 64, 1, 1)),)),
        WeightFile("lpips_vgg", ("lpips_recon_vgg",), "lpips_vgg.pth",
                   "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", "tensors", package="lpips",
                   inside="weights/v0.1/vgg.pth", shapes=(("lin4.model.1.weight", (1, 512, 1, 1)),)),
        WeightFile("dists", ("dists",), "dists_weights.pt",
                   "f5e65c96230b7f6ca995691647d482237e4cab8a50c5c4a5784f219ef0748218", "tensors", package="torchmetrics",
                   inside="functional/image/dists_models/weights.pt",
                   shapes=(("alpha", (1, 1475, 1, 1)), ("beta", (1, 1475, 1, 1)))),
    )
}  # fmt: skip


class WeightsMissing(Exception):
    """A weight file is absent or refused: the metric is unavailable, and the message says how to get it."""


def hub_folder() -> Path:
    """Where torch keeps downloaded weights, by torch's own rule (`TORCH_HOME` moves it)."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"


def places(file: WeightFile, folder: str | None) -> list[Path]:
    """Paths at which `file` is looked for, in order."""
    found = [Path(folder) / file.filename] if folder else []
    found.append(hub_folder() / file.filename)
    if file.package:
        spec = importlib.util.find_spec(file.package)  # does not import the package
        if spec is not None and spec.submodule_search_locations:
            found.append(Path(next(iter(spec.submodule_search_locations))) / file.inside)
    return found


def find(file: WeightFile, folder: str | None) -> Path | None:
    """The first existing place of `file`, unchecked, or None."""
    return next((path for path in places(file, folder) if os.path.isfile(path)), None)  # noqa: PTH113 - False where nobody may look


def verified(name: str, folder: str | None) -> tuple[Path, str]:
    """Path and full sha256 of a weight file whose digest is right. Raises WeightsMissing otherwise, saying what to do."""
    file = FILES[name]
    path = find(file, folder)
    if path is None:
        raise WeightsMissing(f"{file.filename} is not in {_looked(file, folder)}; {how_to_get(file)}")
    try:
        digest = file_digest(path)
    except OSError as error:
        raise WeightsMissing(f"{path} is refused: it cannot be read ({reason(error)})") from error
    if not digest.startswith(file.sha256):
        raise WeightsMissing(
            f"{path} is refused: its sha256 starts with {digest[:12]}, not {file.sha256[:12]} (truncated or another file); "
            f"{how_to_get(file)}"
        )
    return path, digest


def load_tensors(name: str, folder: str | None) -> tuple[dict[str, torch.Tensor], str]:
    """Tensors of a verified file and its sha256. Raises WeightsMissing when absent, wrong, unreadable or of other shapes."""
    import torch  # here: plans ask which files are there, and must not wait for torch

    path, digest = verified(name, folder)
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsMissing(
            f"{path} is refused: it cannot be read as tensors ({' '.join(str(error).split())[:120]})"
        ) from error
    for key, shape in FILES[name].shapes:
        actual = tuple(state[key].shape) if isinstance(state, dict) and key in state else None
        if actual != shape:
            raise WeightsMissing(f"{path} is refused: tensor {key} has shape {actual}, expected {shape}")
    return state, digest


def missing_for(metric: str, folder: str | None) -> str:
    """Which weight files a metric row needs that are not there, and how to get them; "" where all are (unchecked)."""
    absent = [
        file
        for file in FILES.values()
        if any(metric == name or metric.startswith(f"{name}_") for name in file.used_by) and find(file, folder) is None
    ]
    return "; ".join(f"{file.filename} is missing ({how_to_get(file)})" for file in absent)


def how_to_get(file: WeightFile) -> str:
    """One clause for people."""
    if not file.url:
        return f"it comes with the package {file.package}"
    return (
        f"get it with `python -m pipeline weights fetch {file.name}`, or put {file.filename} into a folder and name it as "
        "protocol.weights_dir"
    )


@dataclass(frozen=True)
class Check:
    """State of one weight file here."""

    file: WeightFile
    state: Literal["ok", "missing", "refused"]
    detail: str  # path where ok, what is wrong otherwise


def check_all(folder: str | None) -> list[Check]:
    """State of every known file: digests and shapes are read, nothing is downloaded."""
    checks = []
    for name, file in FILES.items():
        try:
            path = (
                load_tensors(name, folder) and find(file, folder)
                if file.kind == "tensors"
                else verified(name, folder)[0]
            )
            checks.append(Check(file, "ok", str(path)))
        except WeightsMissing as error:
            checks.append(Check(file, "missing" if find(file, folder) is None else "refused", str(error)))
    return checks


def fetch(name: str, folder: Path, on_bytes: Callable[[int, int], None]) -> Path:
    """Download one file into `folder`, verify its digest, and put it in place in one step.

    `on_bytes(done, total)` is told of the way; total 0 when the server does not say. Raises UserError when the name is
    unknown, the network fails or stalls, or the digest is wrong; then nothing is left behind.
    """
    if name not in FILES:
        raise UserError(f"unknown weights {name!r}; there are: {', '.join(FILES)}")
    file = FILES[name]
    if not file.url:
        raise UserError(f"weights {name} are not downloaded: they come with the package {file.package}")
    target = folder / file.filename
    temporary = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=f".{file.filename}.", suffix=".part")
        hasher = hashlib.sha256()
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(file.url, timeout=TIMEOUT_S) as answer:
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            while chunk := answer.read(CHUNK_BYTES):
                out.write(chunk)
                hasher.update(chunk)
                done += len(chunk)
                on_bytes(done, total)
        if not hasher.hexdigest().startswith(file.sha256):
            raise UserError(
                f"{file.url}: what arrived has sha256 {hasher.hexdigest()[:12]}..., not {file.sha256[:12]}...; nothing was kept"
            )
        Path(temporary).replace(target)
        return target
    except OSError as error:  # URLError and timeouts are OSErrors
        raise UserError(f"cannot fetch {file.url} to {folder}: {reason(error)}") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def _looked(file: WeightFile, folder: str | None) -> str:
    """Folders for people; the home folder as ~, so that the text is the same for everybody."""
    home = Path.home()
    parents = [path.parent for path in places(file, folder)]
    return " or ".join(f"~/{p.relative_to(home)}" if p.is_relative_to(home) else str(p) for p in parents)
