"""Which copies the audit finds, by how they were changed: `python benchmarks/near_copies.py [--dataset cmri|ecg4] [FOLDER]`.

FOLDER is laid out as the collection's publisher does; without it demo data are drawn. Of some files copies are planted, changed
in one way each, every one as a file of a patient of its own. A copy is found if it is linked with an original of the
same patient. False pairs are links between two files of different patients, neither of them a copy of the other's patient.

`in place`: pictures compared as they are, moved by up to three of 64 pixels. `aligned`: laid on each other before too, as the
audit does it. Candidates by vectors are those of coarse grey levels here, not of a backbone.
Crops take that share off every side; shifts move to the right and up, what is uncovered is filled with the paper or air.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

from cardium.audit import duplicates
from cardium.audit.survey import SurveyJob, survey_files
from cardium.datasets import Found, get_collection
from cardium.imaging.decode import decode
from cardium.imaging.spec import Limits

# Demo patients, of sheets: sheets a class.
_DEMO = {"cmri": 16, "ecg4": 12}


def crop(share: float) -> Callable[[Image.Image, int], Image.Image]:
    def cut(picture: Image.Image, _: int) -> Image.Image:
        width, height = picture.size
        x, y = round(share * width), round(share * height)
        return picture.crop((x, y, width - x, height - y))

    return cut


def pasted(picture: Image.Image, fill: int, size: tuple[int, int], place: tuple[int, int]) -> Image.Image:
    out = Image.new("RGB", size, (fill,) * 3)
    out.paste(picture, place)
    return out


def shift(picture: Image.Image, fill: int) -> Image.Image:
    width, height = picture.size
    return pasted(picture, fill, picture.size, (round(0.05 * width), -round(0.05 * height)))


def pad(picture: Image.Image, fill: int) -> Image.Image:
    """A square, 1.25 of the longest side."""
    width, height = picture.size
    side = round(1.25 * max(width, height))
    return pasted(picture, fill, (side, side), ((side - width) // 2, (side - height) // 2))


def label(picture: Image.Image, fill: int) -> Image.Image:
    out, (width, height) = picture.copy(), picture.size
    draw = ImageDraw.Draw(out)
    draw.rectangle((0, 0, 0.35 * width, 0.09 * height), fill=(fill,) * 3)
    font = ImageFont.load_default(0.06 * height)
    draw.text((0.02 * width, 0.01 * height), "L  1.1.2001", fill=(255 - fill,) * 3, font=font)
    return out


def turn(degrees: float) -> Callable[[Image.Image, int], Image.Image]:
    return lambda picture, fill: picture.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=(fill,) * 3)


def jpeg(picture: Image.Image, _: int) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, format="JPEG", quality=30)
    return Image.open(data).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image, int], Image.Image]] = {
    "crop 2 %": crop(0.02),
    "crop 5 %": crop(0.05),
    "crop 10 %": crop(0.10),
    "shift 5 %": shift,
    "padded to a square": pad,
    "burnt-in label": label,
    "turned 1 degree": turn(1),
    "turned 2 degrees": turn(2),
    "turned 5 degrees": turn(5),
    "mirrored": lambda picture, _: ImageOps.mirror(picture),
    "inverted": lambda picture, _: ImageOps.invert(picture),
    "equalised": lambda picture, _: ImageOps.equalize(picture),
    "JPEG, quality 30": jpeg,
    "half the size": lambda picture, _: picture.resize((picture.width // 2, picture.height // 2)),
}


def plant(folder: Path, dataset: str, files: int, copies: int, seed: int, out: Path) -> tuple[list[str], list[str], list[str]]:
    """Writes originals and changed copies below `out`: paths, the patient of each, the change of each ("": an original)."""
    collection = get_collection(dataset)
    found = [one for one in collection.scan(folder) if isinstance(one, Found)]
    content = {(folder / one.path).read_bytes(): one for one in found}
    chosen = list(content.items())
    rng = np.random.default_rng(seed)
    chosen = [chosen[i] for i in np.sort(rng.permutation(len(chosen))[:files])]
    paths, patients, changed = [], [], []

    def write(data: bytes, suffix: str, patient: str, change: str) -> None:
        paths.append(f"{len(paths):06d}{suffix}")
        (out / paths[-1]).write_bytes(data)
        patients.append(patient)
        changed.append(change)

    for data, one in chosen:
        write(data, Path(one.path).suffix, one.patient or one.path, "")
    for change, make in CHANGES.items():
        for number in rng.permutation(len(chosen))[:copies]:
            data, one = chosen[number]
            picture = Image.fromarray(decode(data, 50_000_000, 100_000_000).pixels)
            png = io.BytesIO()
            make(picture, 255 if collection.content == "sheet" else 0).save(png, format="PNG")
            write(png.getvalue(), ".png", one.patient or one.path, change)
    return paths, patients, changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--dataset", choices=sorted(_DEMO), default="cmri")
    parser.add_argument("--files", type=int, default=1000, help="originals at most")
    parser.add_argument("--copies", type=int, default=20, help="planted of each kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, out = given.folder, Path(scratch) / "planted"
        out.mkdir()
        if folder is None:
            folder, demo = Path(scratch) / "demo", get_collection(given.dataset).load_demo()
            assert demo is not None
            for path, data in demo.files(_DEMO[given.dataset], demo.seed):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(data)
        paths, patients, changed = plant(folder, given.dataset, given.files, given.copies, given.seed, out)
        sheets = get_collection(given.dataset).content == "sheet"
        limits = Limits(50_000_000, 100_000_000, 400_000_000, 1_000_000_000)
        surveyed = list(
            survey_files(SurveyJob("planted", "again", out, "image", sheets, limits, 96, 128), [(p, False) for p in paths])
        )
        print(f"{changed.count('')} originals, {len(paths) - changed.count('')} copies")
    rasters = np.stack([one.raster for one in surveyed])
    wholes: NDArray[np.uint8] = np.stack([one.whole for one in surveyed if one.whole is not None])
    vectors = rasters.mean(axis=1).reshape(len(rasters), 16, 4, 16, 4).mean(axis=(2, 4)).reshape(len(rasters), -1)
    groups = [patient if not change else f"copy {i}" for i, (patient, change) in enumerate(zip(patients, changed, strict=True))]
    rows = []
    for pictures in (None, wholes):
        started = time.process_time()
        links = duplicates.near_links(np.arange(len(paths)), rasters, pictures, vectors.astype(np.float32), groups, sheets)
        seconds = time.process_time() - started
        ends = [pair for link in links for pair in ((link.copy, link.of), (link.of, link.copy))]
        own = {copy for copy, of in ends if patients[copy] == patients[of] and not changed[of]}
        false = [link for link in links if patients[link.copy] != patients[link.of]]
        rows.append((own, false, seconds))
    print("| change | in place | aligned |\n|---|---|---|")
    for change in CHANGES:
        planted = [i for i, one in enumerate(changed) if one == change]
        print(f"| {change} | {' | '.join(f'{sum(i in own for i in planted)} of {len(planted)}' for own, _, _ in rows)} |")
    print(f"| false pairs | {' | '.join(str(len(false)) for _, false, _ in rows)} |")
    print(f"| seconds | {' | '.join(f'{seconds:.1f}' for _, _, seconds in rows)} |")
    for link in rows[1][1][:10]:
        print("false:", link.similarity, *(f"{patients[end]} {changed[end]}" for end in (link.copy, link.of)))


if __name__ == "__main__":
    main()
