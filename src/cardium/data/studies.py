"""What somebody has of patients -> a study a patient: folders, zip archives, files.

Nothing is unpacked to disk. An archive is judged by its directory before a byte of it is inflated.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from cardium.config import Serve
from cardium.datasets.cmri import frame_number, is_series, patient_folder, patient_prefix, series_of
from cardium.datasets.scan import taken_order
from cardium.errors import system_reason
from cardium.imaging.decode import Undecodable
from cardium.imaging.kinds import Rendered
from cardium.imaging.spec import Limits
from cardium.imaging.study import StudyFile, render_study

_ZIP = b"PK\x03\x04"
_EMPTY_ZIP = b"PK\x05\x06"
# What systems and viewers leave beside images.
_LITTER = re.compile(r"(^|/)(\.|__MACOSX/|thumbs\.db$|desktop\.ini$|DICOMDIR$)|\.(csv|txt|json|md)$", re.IGNORECASE)


@dataclass(frozen=True)
class Study:
    """The files of one patient, in the order in which they were taken. error: why there is none, "" otherwise."""

    name: str
    files: tuple[StudyFile, ...] = ()
    error: str = ""


def is_archive(data: bytes) -> bool:
    """Whether bytes begin as a zip archive does."""
    return data[:4] in (_ZIP, _EMPTY_ZIP)


def study_of_archive(name: str, data: bytes, limits: Serve) -> Study:
    """The images in a zip archive, all of one patient; the study's error says what is wrong with it."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = [one for one in archive.infolist() if not one.is_dir() and not _LITTER.search(one.filename)]
            if any(one.flag_bits & 1 for one in members):
                return Study(name, error="the archive is encrypted")
            if len(members) > limits.max_study_files:
                return Study(name, error=f"the archive has {len(members)} files, the limit is {limits.max_study_files}")
            if sum(one.file_size for one in members) > limits.max_study_bytes:
                return Study(name, error=f"the archive unpacks to more than {limits.max_study_bytes // 1_000_000} MB")
            inside = []
            for one in members:
                with archive.open(one) as file:
                    inside.append((one.filename, file.read(one.file_size + 1)))
    except Exception:  # zipfile and its codecs raise nearly every type on crafted bytes.
        return Study(name, error="the archive is damaged")
    if not inside:
        return Study(name, error="the archive holds no images")
    return _study(name, inside, limits)


def render_archive(data: bytes, limits: Serve, of_image: Limits) -> Rendered:
    """The rendering `heart` of a zip archive's images. Raises Undecodable, whose text is what is wrong with it."""
    if not is_archive(data):
        raise Undecodable("one file shows no beat: send all short-axis images of a patient as a zip")
    study = study_of_archive("", data, limits)
    if study.error:
        raise Undecodable(study.error)
    return render_study(study.files, of_image)


def is_litter(path: str) -> bool:
    """Whether a path below a folder of images is what systems and viewers leave beside images."""
    return bool(_LITTER.search(path))


def studies_of_folder(folder: Path, limits: Serve) -> list[Study]:
    """The patients in a folder, in order of their names (`patients_of_folder`)."""
    studies = [study_of_paths(folder, own, paths, limits) for own, paths in patients_of_folder(folder).items()]
    return studies or [Study(str(folder), error="the folder holds no images")]


def patients_of_folder(folder: Path) -> dict[str, list[str]]:
    """The patients in a folder, in order of their names: name -> paths of their files, both below the folder.

    They are the folders called `Directory_<n>` below it, or it is one patient itself, whose name is "": with images or nothing
    but series in it. Otherwise every folder in it is a patient. Images of one folder whose names begin with several patients'
    are theirs. A zip archive is a patient of its own, named after its path.
    """
    places: dict[str, list[str]] = {}
    archives: list[str] = []
    for at, folders, names in os.walk(folder):
        folders.sort()
        place = Path(at).relative_to(folder).as_posix()
        paths = [(Path(at) / name).relative_to(folder).as_posix() for name in sorted(names)]
        archives += [path for path in paths if path.lower().endswith(".zip")]
        found = [path for path in paths if not (_LITTER.search(path) or path.lower().endswith(".zip"))]
        if found:
            places[place] = found
    tops = {place.split("/")[0] for place in places}
    one = "." in tops or bool(patient_folder(folder.name)) or all(is_series(top) for top in tops)
    patients: dict[str, list[str]] = {}
    for place, paths in places.items():
        patients.setdefault(patient_folder(place) or ("" if one else place.split("/")[0]), []).extend(paths)
    by_name: dict[str, list[str]] = {}
    for path in patients.get("", []):
        by_name.setdefault(patient_prefix(path.rpartition("/")[2]), []).append(path)
    if len(by_name) > 1 and "" not in by_name:
        patients = {own: paths for own, paths in patients.items() if own} | by_name
    patients |= {path: [path] for path in archives}
    return dict(sorted(patients.items()))


def study_of_paths(folder: Path, own: str, paths: Sequence[str], limits: Serve) -> Study:
    """A patient of `patients_of_folder`, whose files are read; the study's error says where they cannot be."""
    name = str(folder / own) if own else str(folder)
    try:
        if list(paths) == [own] and own.lower().endswith(".zip"):
            return study_of_archive(name, (folder / own).read_bytes(), limits)
        return _study(name, [(path, (folder / path).read_bytes()) for path in paths], limits)
    except OSError as error:
        return Study(name, error=system_reason(error))


def given_studies(files: Sequence[Path], limits: Serve) -> list[Study]:
    """The patients in what was named: of every folder those in it, of a zip archive one, of all other files together one."""
    studies: list[Study] = []
    singles: list[tuple[str, bytes]] = []
    for file in map(Path, files):
        try:
            if file.is_dir():
                studies += studies_of_folder(file, limits)
            elif is_archive(data := file.read_bytes()):
                studies.append(study_of_archive(str(file), data, limits))
            else:
                singles.append((str(file), data))
        except OSError as error:
            studies.append(Study(str(file), error=system_reason(error)))
    if singles:
        name = singles[0][0] if len(singles) == 1 else f"{singles[0][0]} and {len(singles) - 1} more"
        studies.append(_study(name, singles, limits))
    return studies


def _study(name: str, inside: Sequence[tuple[str, bytes]], limits: Serve) -> Study:
    """(path, bytes) of one patient's files, in any order."""
    patients = sorted({patient_folder(path.rpartition("/")[0]) for path, _ in inside})
    if len(patients) > 1:
        return Study(name, error=f"the files are of {len(patients)} patients ({', '.join(patients[:3])}): give one at a time")
    ordered = sorted(inside, key=lambda one: taken_order(series_of(one[0]), frame_number(one[0]), one[0]))
    files = tuple(StudyFile(path, data, series_of(path)) for path, data in ordered)
    return Study(name, files, study_fault(files, limits))


def study_fault(files: Sequence[StudyFile], limits: Serve) -> str:
    """Why files are no study: too many, too large, or of several patients by their DICOM headers; "" where they are one."""
    if len(files) == 1:
        return "one image shows no beat: all short-axis images of the patient are needed"
    if len(files) > limits.max_study_files:
        return f"{len(files)} files, the limit is {limits.max_study_files}"
    if sum(len(file.data) for file in files) > limits.max_study_bytes:
        return f"more than {limits.max_study_bytes // 1_000_000} MB"
    patients = {_dicom_patient(file.data) for file in files} - {""}
    if len(patients) > 1:
        return f"the DICOM files are of {len(patients)} patients: give one at a time"
    return ""


def _dicom_patient(data: bytes) -> str:
    """The patient's ID in a DICOM file, "" where there is none; it is compared and never shown."""
    if data[128:132] != b"DICM":
        return ""
    from pydicom import dcmread

    try:
        return str(dcmread(BytesIO(data), specific_tags=["PatientID"], stop_before_pixels=True).get("PatientID") or "")
    except Exception:  # The decoder will say what is wrong with it.
        return ""
