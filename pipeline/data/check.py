"""`data check`: the doctor of data sets. Every finding names files, says how bad it is and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.data.adapters import find_listing, guess_data_set
from pipeline.data.adapters.pairing import lenient
from pipeline.data.adapters.prepared import MANIFEST, read_manifest
from pipeline.data.class_use import RARE_IMAGES, lacking, rare, said, shortened
from pipeline.data.crop import TELLING, cropping, cut_away, default_aspect
from pipeline.data.inspection import Inspected, inspect_sample
from pipeline.data.label_spaces import LabelSpace
from pipeline.data.listing import Listing, SampleFiles
from pipeline.data.splits import holdout
from pipeline.errors import UserError
from pipeline.identity import file_digest
from pipeline.schema.data import SPACES_OF

Severity = Literal["error", "warning", "note"]
_ORDER: dict[str, int] = {"error": 0, "warning": 1, "note": 2}
_MUCH_CUT = 0.1  # share of the photos' area that nobody should lose unseen


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    kind: str  # short fixed name, e.g. "unpaired"
    severity: Severity
    message: str
    advice: str
    files: tuple[str, ...]  # every file concerned


@dataclass(frozen=True)
class Report:
    """What the doctor says of one root."""

    root: str
    data: str
    layout: str
    label_space: str
    samples: int
    findings: tuple[Finding, ...]  # worst first
    classes: dict[str, dict[str, int]]  # pixels and images by class name

    @property
    def healthy(self) -> bool:
        """No finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"healthy": self.healthy}


# What each kind of finding about single samples means: severity, message (with {n}), advice.
_SAMPLE_KINDS: dict[str, tuple[Severity, str, str]] = {
    "unreadable": (
        "error",
        "{n} samples have a file that cannot be read",
        "replace the files from the original archive",
    ),
    "shape_mismatch": (
        "error",
        "{n} label maps have another aspect than their photo",
        "pair the right files, or remove them",
    ),
    "ids_out_of_range": (
        "error",
        "{n} label maps hold ids outside the label space",
        "choose another label space, or mend the maps",
    ),
    "single_class": (
        "warning",
        "{n} label maps hold a single class",
        "look at them with `data show`; remove empty ones",
    ),
    "mostly_unknown": ("warning", "{n} label maps are more than 95 % unknown", "remove them from the split"),
    "sides_swapped": (
        "warning",
        "{n} faces have l_ parts on the image's left",
        "l_ is the subject's left, the image's right; were photos mirrored without exchanging left and right classes?",
    ),
    "wrong_extension": (
        "warning",
        "{n} photos are not of the format their extension says",
        "`data prepare` converts them",
    ),
    "rotated": (
        "note",
        "{n} photos are rotated by their EXIF orientation",
        "they are read upright; `data prepare` writes them so",
    ),
    "converted": ("note", "{n} photos are not RGB (grey, CMYK, palette or alpha)", "they are read as RGB"),
    "size_differs": (
        "note",
        "{n} label maps have another size than their photo",
        "normal for CelebAMask-HQ (512 and 1024)",
    ),
}


def check(
    root: Path,
    *,
    data: str | None = None,
    space_name: str | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Look at every file of a data set. `data` None: told from the folder names; `space_name` None: the usual one.

    UserError only where there is nothing to check: no such folder, a layout of no known data set.
    """
    if not root.is_dir():
        raise UserError(f"{root}: no such folder")
    name = data if data is not None else guess_data_set(root)
    with lenient() as complaints:
        listing = find_listing(name, root, _space(root, name, space_name))
    listed = sorted((files for part in listing.parts.values() for files in part), key=lambda files: files.key)
    findings = [
        Finding(c.kind, "error", c.message, _COMPLAINT_ADVICE[c.kind], tuple(map(str, c.files))) for c in complaints
    ]
    if not listed:
        findings.append(Finding("empty", "error", f"{root}: no complete sample", "see the other findings", ()))
    inspected: list[Inspected] = []
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="check") as pool:
        for one in pool.map(lambda files: inspect_sample(files, listing.space), listed):
            inspected.append(one)
            if progress is not None:
                progress(len(inspected), len(listed))
    findings += _sample_findings(inspected) + _duplicates(inspected, listing)
    findings += _unseen(inspected, listing.space) + _sizes(inspected)
    if name == "folder":
        findings += _cropped(root, inspected)
    findings += _rare(inspected, listing)
    if (root / MANIFEST).is_file():
        findings += _manifest(root, listed)
    findings.sort(key=lambda finding: (_ORDER[finding.severity], finding.kind))
    pixels: Counter[str] = Counter()
    images: Counter[str] = Counter()
    for one in inspected:
        pixels.update(one.pixels)
        images.update(one.pixels.keys())
    classes = {c: {"pixels": pixels[c], "images": images[c]} for c in listing.space.classes}
    return Report(str(root), name, listing.name, listing.space.name, len(listed), tuple(findings), classes)


_COMPLAINT_ADVICE = {
    "unpaired": "bring the missing partners, or remove the lone files",
    "label_order": "read them with data.label_space (--label-space) as said; never renumber by hand",
}


def _space(root: Path, name: str, wanted: str | None) -> str:
    if wanted is not None or name not in SPACES_OF:
        return wanted or ""
    if (root / MANIFEST).is_file():
        stored = str(read_manifest(root)["label_space"])
        return stored if stored in SPACES_OF[name] else SPACES_OF[name][0]
    return SPACES_OF[name][0]


def _sample_findings(inspected: Sequence[Inspected]) -> list[Finding]:
    findings = []
    for kind, (severity, text, advice) in _SAMPLE_KINDS.items():
        hit = [(one, detail) for one in inspected for found, detail in one.problems if found == kind]
        if hit:
            details = "; ".join(detail for _, detail in hit[:3] if detail)
            message = text.format(n=len(hit)) + (f": {details}" if details else "")
            files = tuple(str(one.files.label if kind in _ABOUT_LABELS else one.files.photo) for one, _ in hit)
            findings.append(Finding(kind, severity, message, advice, files))
    return findings


_ABOUT_LABELS = {"ids_out_of_range", "single_class", "mostly_unknown", "sides_swapped", "shape_mismatch"}


def _duplicates(inspected: Sequence[Inspected], listing: Listing) -> list[Finding]:
    """Same pictures: an error where they straddle a split of the root's own, else a note."""
    from pipeline.data.prepare.duplicates import group_by_look

    keys = {one.files.key: one for one in inspected if one.look is not None}
    groups = group_by_look([(key, one.look or "", one.photo_sha256 or "") for key, one in keys.items()])
    if not groups:
        return []
    members = _own_splits(listing)
    straddling: list[list[str]] = []
    within: list[list[str]] = []
    for group in groups:
        places = [{key for key in group if key in inside} for inside in members.values()]
        leaks = any(a and b and a != b for i, a in enumerate(places) for b in places[i + 1 :])
        (straddling if leaks else within).append(group)
    findings = []
    for kind, severity, found, text, advice in (
        ("duplicates_across_splits", "error", straddling, "in different splits", "`data prepare` keeps them apart"),
        ("duplicates", "note", within, "", "harmless within a split; `data prepare` keeps them out of different ones"),
    ):
        if found:
            shown = "; ".join(" = ".join(group) for group in found[:5])
            files = tuple(str(keys[key].files.photo) for group in found for key in group)
            message = f"{len(found)} groups of the same photo {text}: {shown}".replace("  ", " ").replace(" :", ":")
            findings.append(Finding(kind, "error" if severity == "error" else "note", message, advice, files))
    return findings


def _unseen(inspected: Sequence[Inspected], space: LabelSpace) -> list[Finding]:
    seen = {name for one in inspected for name in one.pixels}
    missing = [c for k, c in enumerate(space.classes) if c not in seen and k != space.unknown]
    if not missing or not inspected:
        return []
    text = f"{len(missing)} of {space.num_classes} classes never occur: {shortened(missing)}"
    return [Finding("classes_never_seen", "note", text, "normal in a small sample; in a full set, look at the ids", ())]


def _sizes(inspected: Sequence[Inspected]) -> list[Finding]:
    sizes = Counter(one.size for one in inspected if one.size is not None)
    if len(sizes) <= 1:
        return []
    (width, height), count = sizes.most_common(1)[0]
    text = f"photos have {len(sizes)} sizes; the most common is {width}x{height} ({count} of {sum(sizes.values())})"
    return [Finding("sizes_vary", "note", text, "all are resized to the training size (data.resize)", ())]


def _own_splits(listing: Listing) -> dict[str, set[str]]:
    """Keys by split, of the split a root brings along; empty where it brings none."""
    named = listing.named_splits[listing.default_split] if listing.default_split is not None else listing.parts
    return {split: {files.key for files in listed} for split, listed in named.items() if split != "all"}


def _rare(inspected: Sequence[Inspected], listing: Listing) -> list[Finding]:
    """Classes that whole splits lack (of the root's own split, else of `holdout`), and classes of few images."""
    classes_of = {one.files.key: tuple(one.pixels) for one in inspected}
    everything = tuple(one.files for one in inspected)
    splits: Mapping[str, Iterable[str]] = _own_splits(listing) or {
        split: [files.key for files in listed] for split, listed in holdout(everything).items()
    }
    findings: list[Finding] = []
    if len(everything) <= RARE_IMAGES:  # a handful says nothing about the classes
        return findings
    if absent := lacking(classes_of, splits):
        severity: Severity = "warning" if "train" in absent else "note"
        text = f"classes that a split lacks: {said(absent)}"
        advice = "training cannot learn what it never sees: try another data.split, or take classes together"
        findings.append(Finding("classes_absent_from_split", severity, text, advice, ()))
    images = Counter(name for one in inspected for name in one.pixels)
    if few := rare(images, listing.space.classes):
        text = f"{len(few)} classes occur in fewer than {RARE_IMAGES} images: {shortened(few)}"
        advice = "numbers of such a class rest on single pictures; `data prepare --merge` takes classes together"
        findings.append(Finding("rare_classes", "note", text, advice, ()))
    return findings


def _cropped(root: Path, inspected: Sequence[Inspected]) -> list[Finding]:
    """What training at the default aspect cuts away from the photos; other data sets are stretched."""
    sizes = [one.size for one in inspected if one.size is not None]
    aspect = default_aspect(str(root))
    share = cut_away(sizes, aspect, "cover") if sizes else 0.0
    if share < TELLING:
        return []
    severity: Severity = "warning" if share > _MUCH_CUT else "note"
    advice = "`data show` draws what is kept; another data.aspect, or `data prepare`, which proposes one"
    return [Finding("cropped", severity, cropping(sizes, aspect, "cover"), advice, ())]


def _manifest(root: Path, listed: Sequence[SampleFiles]) -> list[Finding]:
    """Files of a prepared root that are not what the manifest says."""
    entries = read_manifest(root)["samples"]
    changed = []
    for files in listed:
        entry = entries[files.key]
        for path, kind in ((files.photo, "photo"), (files.label, "label"), (files.instance, "instance")):
            if path is not None and (not path.is_file() or file_digest(path) != entry[f"{kind}_sha256"]):
                changed.append(str(path))
    if not changed:
        return []
    shown = ", ".join(changed[:5])
    text = f"{len(changed)} files are not those the manifest describes: {shown}"
    return [
        Finding("changed_since_prepared", "error", text, "delete them and run `data prepare` again", tuple(changed))
    ]
