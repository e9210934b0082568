"""A painted picture as a file: everything that decides its pixels, so that `python -m pipeline edit --from FILE` repeats them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.schema.base import Section

Place = Annotated[int, Field(ge=0)]  # of a style photo in the list of them
Share = Annotated[float, Field(ge=0, le=1)]
# A name beside the painting itself: a painting reaches no other folder.
FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*\.png$", description="a PNG beside it, like label.png")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="64 hexadecimal digits")]


class StyleRecipe(Section):
    """Where the style of a painted picture comes from."""

    base: Place  # the style photo of everything that nothing else is said of
    towards: Place | None  # the photo an interpolation leads to
    position: Share  # 0: the base alone, 1: `towards` alone
    noise: Share  # share of a style drawn from noise, where the family samples
    seed: Annotated[int, Field(ge=0, lt=2**31)]  # of that noise
    classes: dict[str, Place]  # class name -> the photo its style is taken from

    def photo_of(self, name: str) -> int | None:
        """The one photo that the style of class `name` comes from; None where it is mixed or drawn."""
        if name in self.classes:
            return self.classes[name]
        if self.noise > 0:
            return None
        if self.towards is None or self.position == 0:
            return self.base
        return self.towards if self.position == 1 else None

    def refuse_beyond(self, count: int) -> None:
        """Raises ValueError where a place is beyond a list of `count` style photos."""
        for key, place in (("base", self.base), ("towards", self.towards), *self.classes.items()):
            if place is not None and place >= count:
                raise ValueError(f"recipe: {key} is style photo {place}, and there are {count} (counted from 0)")


class StylePhoto(Section):
    """A style photo with its own label map, at the size of the picture."""

    name: str  # for people: the key of a sample, or the name of an uploaded file
    photo: FileName
    label: FileName


class PaintedPicture(Section):
    """What one run made of the painting."""

    run: Sha256
    file: FileName
    pixels: Sha256  # of the (H,W,3) uint8 bytes


class Painting(Section):
    """A painted label map, its style photos and the pictures that runs made of it."""

    format: Literal[1]
    # Class name -> its id in the label maps here, in the classes' order: the ids of the data set's own files.
    ids: dict[str, Annotated[int, Field(ge=0, le=65535)]]
    label: FileName
    styles: Annotated[tuple[StylePhoto, ...], Field(min_length=1)]
    recipe: StyleRecipe
    pictures: Annotated[tuple[PaintedPicture, ...], Field(min_length=1)]
    threads: Annotated[int, Field(ge=1)]  # of torch: equal counts give equal bits on a CPU
    device: str  # for people, as `torch` and `code`
    torch: str
    code: str

    @model_validator(mode="after")
    def _sound(self) -> Painting:
        self.recipe.refuse_beyond(len(self.styles))
        unknown = [name for name in self.recipe.classes if name not in self.ids]
        if unknown:
            raise ValueError(f"recipe: classes names {', '.join(unknown)}, which ids does not")
        if len(set(self.ids.values())) != len(self.ids):
            raise ValueError("ids gives two classes one id")
        return self
