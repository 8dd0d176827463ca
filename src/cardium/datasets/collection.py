"""What a collection states about itself, and what a scan of its folder yields."""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cardium.datasets.measure import Facts, measure_image, measure_volume

if TYPE_CHECKING:
    from cardium.demo.make import Demo
    from cardium.imaging.spec import Limits


@dataclass(frozen=True)
class Found:
    """A file that is to become a record.

    path: below the collection's folder, with /. patient: "" if the file's place does not name one; such a file is a group of
    its own. One name is one patient, whether its accents are written in one character or in two (Unicode's NFC and NFD).
    series: "" if unknown. frame: its number within the series, -1 if unknown.
    """

    path: str
    label: str
    patient: str = ""
    series: str = ""
    frame: int = -1

    def __post_init__(self) -> None:
        object.__setattr__(self, "patient", unicodedata.normalize("NFC", self.patient))


@dataclass(frozen=True)
class Rejected:
    """A file that does not become a record.

    label: the class that loses the file; "" if none does (system files, files outside of every class folder).
    reason: `kind` or `kind: details`; reports count by kind. files: how many are lost with it, as of `scan.Entry`.
    """

    path: str
    label: str
    reason: str
    files: int = 1


@dataclass(frozen=True)
class Mendeley:
    """One version of a dataset at Mendeley Data."""

    dataset: str
    version: int


@dataclass(frozen=True)
class Collection:
    """One published collection under one labelling.

    classes: in class order, the order of every probability column.
    published_counts: files per class as its page states them, {} if unknown.
    page: the address to download it from by hand.
    scan(folder): yields a Found or a Rejected for every file below `folder`, in a stable order, without opening an image. It
    does not yield a table of labels, but those of its rows that have no file. Raises CardiumError for an unclear folder.
    published_split: how the original divided it, a name in `splits.PUBLISHED_SPLITS`.
    recommended: the model to begin with, a name of the zoo.
    content: what its records are. It decides the defaults of params.yaml that the dataset takes over: section `image`, `sheet`
    (scanned ECGs) or `volume`.
    published_labels: patient -> class, if the original names its patients.
    names_patients: whether the publisher says which patient a file belongs to. patients_by: where that is said, as what to do
    about files that name none; "" for a folder a patient.
    handle: its name at kagglehub, "" if it is not there.
    mendeley: folder -> the Mendeley dataset downloaded into it ("": the collection's own folder), {} if it is not there.
    demo: where its look-alike is defined, as `module:name` of a `cardium.demo.make.Demo`; "" for none.
    order: its place in lists; equal places are ordered by name.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    published_counts: Mapping[str, int]
    page: str
    licence: str
    scan: Callable[[Path], Iterator[Found | Rejected]]
    published_split: str
    recommended: str
    content: Literal["image", "sheet", "volume"] = "image"
    published_labels: Mapping[str, str] = field(default_factory=dict)
    names_patients: bool = True
    patients_by: str = ""
    handle: str = ""
    mendeley: Mapping[str, Mendeley] = field(default_factory=dict)
    demo: str = ""
    order: int = 100

    def about(self, generated: bool) -> str:
        """What the data are, for people. generated: whether they are the collection's look-alike."""
        return f"Generated demo data, no real patients; made to look like the {self.title}" if generated else self.title

    @property
    def kind(self) -> Literal["image", "volume"]:
        """The kind of file that a record is: a sheet is an image."""
        return "volume" if self.content == "volume" else "image"

    def limits(self, limits: Limits) -> tuple[int, int]:
        """The limits for one record: pixels or voxels, and bytes."""
        if self.kind == "volume":
            return limits.max_voxels, limits.max_volume_bytes
        return limits.max_pixels, limits.max_bytes

    def measure(self, data: bytes, max_pixels: int, max_bytes: int) -> Facts:
        """Measures one record's bytes. max_pixels: of volumes, voxels.

        Raises imaging.decode.Undecodable, whose text is the reason, for bytes that are not a readable record.
        """
        return (measure_volume if self.kind == "volume" else measure_image)(data, max_pixels, max_bytes)

    def load_demo(self) -> Demo | None:
        """The generator of the look-alike that `demo` names, imported now; None for a collection without one."""
        if not self.demo:
            return None
        module, _, name = self.demo.partition(":")
        demo: Demo = getattr(importlib.import_module(module), name)
        return demo
