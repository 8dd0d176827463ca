"""NIfTI volumes: orientation against nibabel's own, values, what is refused and why, and how frames come of a volume."""

import contextlib
import gzip
import itertools
import tracemalloc
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from cardium.errors import CardiumError
from cardium.imaging.decode import Undecodable
from cardium.imaging.spec import Render
from cardium.imaging.volume import Volume, read_volume, render_volume, sample_slices

REAL = Path(__file__).resolve().parents[2] / "shared" / "real" / "volumes"
VOXELS, BYTES = 10_000_000, 100_000_000

# Every way to lay three axes along three directions: 6 orders, 8 choices of ends.
ORIENTATIONS = [(order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)]


def turned(order: tuple[int, ...], signs: tuple[int, ...], sizes: tuple[float, ...], angle: float = 0.0) -> np.ndarray:
    """An affine whose axis i runs along direction order[i]; `angle` (degrees) tips the whole about an oblique line."""
    affine = np.zeros((3, 3))
    for axis in range(3):
        affine[order[axis], axis] = signs[axis] * sizes[axis]
    line = np.array([1.0, 2.0, -1.5]) / np.linalg.norm([1.0, 2.0, -1.5])
    cross = np.array([[0, -line[2], line[1]], [line[2], 0, -line[0]], [-line[1], line[0], 0]])
    radians = np.radians(angle)
    rotation = np.eye(3) + np.sin(radians) * cross + (1 - np.cos(radians)) * cross @ cross
    full = np.eye(4)
    full[:3, :3] = rotation @ affine
    full[:3, 3] = [-31.0, 17.5, 402.0]
    return full


def nifti(voxels: np.ndarray, affine: np.ndarray | None = None, kind=nib.Nifti1Image, packed: bool = True, **fields) -> bytes:
    """The bytes that nibabel writes; fields: of the header, set as they are."""
    image = kind(voxels, np.diag([0.5, 0.6, 0.7, 1.0]) if affine is None else affine)
    for name, value in fields.items():
        image.header[name] = value
    data = image.to_bytes()
    return gzip.compress(data, 1) if packed else data


def patched(data: bytes, **fields) -> bytes:
    """An unpacked file with fields of its header overwritten, whatever nibabel would say of them."""
    header = nib.Nifti1Header(data[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    return header.binaryblock + data[348:]


def noise(*shape: int, dtype=np.int16, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1500, shape).astype(dtype)


def refusal(data: bytes, **limits) -> str:
    with pytest.raises(Undecodable) as error:
        read_volume(data, limits.get("max_voxels", VOXELS), limits.get("max_bytes", BYTES))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("angle", [0.0, 25.0])
@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_all_orientations_agree_with_nibabel(order, signs, angle):
    voxels, affine = noise(4, 5, 6), turned(order, signs, (0.5, 0.8, 3.0), angle)
    volume = read_volume(nifti(voxels, affine), VOXELS, BYTES)

    image = nib.Nifti1Image(voxels, affine)
    to_lps = nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), nib.orientations.axcodes2ornt(("L", "P", "S"))
    )
    expected = image.as_reoriented(to_lps)
    assert np.array_equal(volume.voxels, np.asarray(expected.dataobj).transpose(2, 1, 0))
    assert volume.spacing == pytest.approx(expected.header.get_zooms()[::-1], rel=1e-5)
    # The same by the way that nibabel calls canonical: right, anterior, superior.
    canonical = np.asarray(nib.as_closest_canonical(image).dataobj)[::-1, ::-1, :].transpose(2, 1, 0)
    assert np.array_equal(volume.voxels, canonical)


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS)
def test_stored_order_is_the_files_own(order, signs):
    voxels = noise(4, 5, 6)
    volume = read_volume(nifti(voxels, turned(order, signs, (0.5, 0.8, 3.0))), VOXELS, BYTES, "stored")
    assert np.array_equal(volume.voxels, np.stack([voxels[:, :, i] for i in range(6)]))
    assert volume.spacing == pytest.approx((3.0, 0.5, 0.8))


@given(
    st.sampled_from(ORIENTATIONS),
    st.floats(-40, 40),
    st.tuples(*[st.integers(0, 6)] * 3),
    st.tuples(*[st.integers(0, 6)] * 3),
)
@hypothesis_settings(max_examples=60)
def test_a_voxel_lands_where_its_place_in_the_world_says(orientation, angle, one, other):
    """Of two marks, the one that lies further along an anatomical direction has the larger index along that axis."""
    affine = turned(*orientation, (1.0, 1.0, 1.0), angle)
    voxels = np.zeros((7, 7, 7), np.int16)
    voxels[one], voxels[other] = 5, 9
    placed = read_volume(nifti(voxels, affine), VOXELS, BYTES).voxels
    first = np.argwhere(placed == (9 if one == other else 5))[0]
    second = np.argwhere(placed == 9)[0]
    # NIfTI's world is right to left negative: x to the right, y to the front, z to the top.
    start, end = (nib.affines.apply_affine(affine, place) for place in (one, other))
    moved = np.array([end[2] - start[2], start[1] - end[1], start[0] - end[0]])  # up, to the back, to the patient's left
    steps = second - first
    if angle == 0:
        assert np.array_equal(steps, np.rint(moved))
    # Tipped by at most 40 degrees an axis keeps most of its direction: the whole way agrees.
    assert np.linalg.norm(steps) == pytest.approx(np.linalg.norm(moved), abs=1e-3)
    if np.linalg.norm(moved) > 0:
        assert steps @ moved > 0.5 * np.linalg.norm(steps) * np.linalg.norm(moved)


def test_the_displays_right_hand_side_is_the_patients_left():
    """A mark in the patient's upper left front, in a file stored right-anterior-superior."""
    voxels = np.zeros((8, 8, 8), np.int16)
    voxels[0, 7, 7] = 100  # x smallest: left; y largest: front; z largest: top
    volume = read_volume(nifti(voxels, np.eye(4)), VOXELS, BYTES)
    assert volume.voxels[7, 0, 7] == 100


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("packed", [True, False])
def test_values_of_every_type_and_byte_order(kind, endian, dtype, packed):
    voxels = np.abs(noise(5, 6, 7)).astype(np.dtype(dtype))
    header = kind.header_class(endianness=endian)
    header.set_data_dtype(np.dtype(dtype).newbyteorder(endian))
    data = kind(voxels, np.eye(4), header).to_bytes()
    volume = read_volume(gzip.compress(data) if packed else data, VOXELS, BYTES, "stored")
    assert volume.stored == np.dtype(dtype).name
    assert volume.voxels.dtype == (np.float32 if dtype.startswith("f") else np.int16)
    assert np.array_equal(volume.voxels, voxels.transpose(2, 0, 1))


@given(
    hnp.arrays(np.int16, (2, 3, 4), elements=st.integers(-(2**15), 2**15 - 1)),
    st.sampled_from([1.0, 2.0, -1.0, 0.25, 1.5e-3, 0.0, float("nan")]),
    st.sampled_from([0.0, -1024.0, -0.5, 40_000.0]),
)
@hypothesis_settings(max_examples=80)
def test_scaled_values_are_nibabels(voxels, slope, intercept):
    if voxels.min() == voxels.max():
        voxels[0, 0, 0] ^= 1
    data = patched(nifti(voxels, packed=False), scl_slope=slope, scl_inter=intercept)
    expected = nib.Nifti1Image.from_bytes(data).get_fdata().transpose(2, 0, 1)
    volume = read_volume(data, VOXELS, BYTES, "stored")
    np.testing.assert_allclose(volume.voxels, expected, rtol=1e-6, atol=1e-3)
    whole = np.array_equal(expected, np.rint(expected)) and (abs(expected + 0.5) <= 2**15 - 0.5).all()
    if volume.voxels.dtype == np.int16:
        assert whole
    elif slope in (1.0, 2.0, -1.0) and intercept in (0.0, -1024.0):
        assert not whole


def test_ct_stored_unsigned_with_an_intercept_is_hounsfield_units_in_two_bytes():
    voxels = np.linspace(0, 4095, 4 * 5 * 6).astype(np.uint16).reshape(4, 5, 6)
    data = patched(nifti(voxels, packed=False), scl_slope=1.0, scl_inter=-1024.0)
    volume = read_volume(data, VOXELS, BYTES, "stored")
    assert volume.voxels.dtype == np.int16
    assert volume.stored == "uint16"
    assert (int(volume.voxels.min()), int(volume.voxels.max())) == (-1024, 3071)


def test_values_that_leave_int16_late_in_the_file_are_kept():
    voxels = np.zeros((100, 100, 80), np.int32)
    voxels[3, 4, 1], voxels[5, 6, 79] = -7, 1_000_000
    volume = read_volume(nifti(voxels), VOXELS, BYTES, "stored")
    assert volume.voxels.dtype == np.float32
    assert volume.voxels[1, 3, 4] == -7
    assert volume.voxels[79, 5, 6] == 1_000_000


def test_a_sequence_is_its_middle_slice_over_time():
    voxels = noise(6, 7, 5, 4)
    affine = turned((2, 0, 1), (1, -1, 1), (1.0, 1.5, 2.0))
    data = nifti(voxels, affine, pixdim=[1, 1.0, 1.5, 2.0, 0.04, 0, 0, 0])
    volume = read_volume(data, VOXELS, BYTES)
    assert volume.sequence
    for moment in range(4):
        alone = read_volume(nifti(voxels[..., moment], affine), VOXELS, BYTES)
        assert not alone.sequence
        assert np.array_equal(volume.voxels[moment], alone.voxels[len(alone.voxels) // 2])
    assert volume.spacing == pytest.approx((0.04, *alone.spacing[1:]))
    stored = read_volume(data, VOXELS, BYTES, "stored")
    assert np.array_equal(stored.voxels, voxels[:, :, 2].transpose(2, 0, 1))


def test_one_moment_is_a_volume():
    assert not read_volume(nifti(noise(4, 5, 6, 1)), VOXELS, BYTES).sequence


def test_qform_serves_where_the_sform_is_none():
    voxels, affine = noise(4, 5, 6), turned((1, 2, 0), (-1, 1, -1), (0.5, 0.8, 3.0), 20)
    image = nib.Nifti1Image(voxels, None)
    image.set_qform(affine, code=1)
    image.set_sform(None, code=0)
    expected = read_volume(nifti(voxels, affine), VOXELS, BYTES)
    assert np.array_equal(read_volume(image.to_bytes(), VOXELS, BYTES).voxels, expected.voxels)
    flat = patched(image.to_bytes(), sform_code=1)  # All zeros.
    assert np.array_equal(read_volume(flat, VOXELS, BYTES).voxels, expected.voxels)


def test_several_gzip_members_and_filling_behind_them():
    voxels = noise(30, 30, 30)
    data = nifti(voxels, packed=False)
    parts = b"".join(gzip.compress(data[start : start + 7001]) for start in range(0, len(data), 7001))
    for packed in (parts, parts + b"\0" * 512):
        assert np.array_equal(read_volume(packed, VOXELS, BYTES, "stored").voxels, voxels.transpose(2, 0, 1))


@given(st.binary(max_size=700))
@hypothesis_settings(max_examples=150)
def test_any_bytes_are_refused_in_one_line(data):
    refusal(data)
    refusal(gzip.compress(data))


@given(st.data())
@hypothesis_settings(max_examples=250)
def test_damaged_headers_are_read_or_refused(data):
    good = nifti(noise(4, 5, 6), packed=False)
    broken = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8))):
        broken[data.draw(st.integers(0, 351))] = data.draw(st.integers(0, 255))
    content = bytes(broken) if data.draw(st.booleans()) else gzip.compress(bytes(broken))
    for order in ("canonical", "stored"):
        with contextlib.suppress(Undecodable):
            volume = read_volume(content, 1000, 10_000, order)
            assert volume.voxels.size <= 1000
            assert volume.voxels.dtype in (np.int16, np.float32)
            assert min(volume.spacing) > 0


@given(st.integers(0, 2000))
@hypothesis_settings(max_examples=60)
def test_every_cut_is_noticed(kept):
    whole = nifti(noise(6, 7, 8))
    assert refusal(whole[: min(kept, len(whole) - 1)]) in ("empty file", "truncated gzip file", "not a NIfTI file")
    plain = nifti(noise(6, 7, 8), packed=False)
    cut = refusal(plain[: min(kept, len(plain) - 1)]).split(":")[0]
    assert cut in ("empty file", "not a NIfTI file", "truncated NIfTI file")


def test_what_is_no_volume_is_refused_with_the_reason():
    voxels = noise(4, 5, 6)
    plain, packed = nifti(voxels, packed=False), nifti(voxels)
    floats = voxels.astype(np.float32)
    floats[1, 2, 3] = np.nan
    assert refusal(b"") == "empty file"
    assert refusal(gzip.compress(b"")) == "empty file"
    assert refusal(b"\xff\xd8\xff\xe0" + b"\0" * 600) == "not a NIfTI file"
    damaged = bytearray(packed)
    damaged[-6] ^= 0xFF  # The checksum.
    assert refusal(bytes(damaged)) == "damaged gzip file"
    assert refusal(patched(plain, magic=b"ni1")).startswith("a NIfTI header without its voxels")
    assert refusal(patched(plain, magic=b"abc")) == "not a NIfTI file"
    assert refusal(nifti(noise(20, 30))).startswith("2-D, not a volume")
    assert refusal(nifti(noise(20, 30, 1))) == "2-D, not a volume: 20 x 30 x 1"
    assert refusal(nifti(noise(2, 3, 4, 5, 6))) == "5-D, neither a volume nor one over time: 2 x 3 x 4 x 5 x 6"
    assert refusal(patched(plain, dim=[3, 4, 0, 6, 1, 1, 1, 1])) == "volume without voxels"
    assert refusal(patched(plain, dim=[9, 4, 5, 6, 1, 1, 1, 1])).startswith("damaged NIfTI header")
    assert refusal(nifti(floats)) == "NaN or infinite values"
    floats[1, 2, 3] = np.inf
    assert refusal(nifti(floats)) == "NaN or infinite values"
    huge = voxels.astype(np.float64)
    huge[0, 0, 0] = 1e300
    assert refusal(nifti(huge)) == "NaN or infinite values"
    assert refusal(nifti(np.full((4, 5, 6), -1024, np.int16))) == "constant: every voxel is -1024"
    for sizes in ((0.01, 1, 1), (1, 1, 25), (1e-3, 1e-3, 1e-3)):
        assert refusal(nifti(voxels, np.diag([*sizes, 1.0]))).startswith("absurd voxel size"), sizes
    assert refusal(patched(plain, sform_code=0, qform_code=0)).startswith("no usable affine")
    flat = np.eye(4)
    flat[:3, 2] = flat[:3, 0] + flat[:3, 1]
    assert refusal(patched(plain, srow_x=flat[0], srow_y=flat[1], srow_z=flat[2], qform_code=0)).startswith("no usable affine")
    assert refusal(patched(plain, srow_x=[np.nan] * 4, qform_code=0)).startswith("no usable affine")
    rgb = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert refusal(nifti(rgb)) == "voxels that are no grey levels: colour"
    assert refusal(nifti(voxels.astype(np.complex64))) == "voxels that are no grey levels: complex"
    assert refusal(patched(plain, datatype=77)) == "unknown data type: code 77"
    assert refusal(plain, max_voxels=119) == "too many voxels: 4 x 5 x 6, limit 119"
    assert refusal(plain, max_bytes=500).startswith("too many bytes")
    assert refusal(patched(plain, scl_slope=2.0, scl_inter=np.nan)) == "damaged NIfTI header: scl_inter is no number"
    for offset in (100, np.nan, 352.5):
        assert refusal(patched(plain, vox_offset=offset)) == "damaged NIfTI header: vox_offset", offset
    with pytest.raises(CardiumError, match="Unknown order of voxels `axial`"):
        read_volume(plain, VOXELS, BYTES, "axial")


def test_metres_and_micrometres_are_lengths_too():
    voxels = noise(4, 5, 6)
    affine = np.diag([0.4e-3, 0.5e-3, 1e-3, 1.0])
    metres = patched(nifti(voxels, affine, packed=False), xyzt_units=1)
    assert read_volume(metres, VOXELS, BYTES).spacing == pytest.approx((1.0, 0.5, 0.4), rel=1e-5)


def _peak(data: bytes, **limits) -> int:
    tracemalloc.start()
    try:
        refusal(data, **limits)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_bombs_are_refused_without_room_being_made_for_them():
    header = nifti(noise(4, 5, 6), packed=False)[:352]
    deflate = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 20)
    bomb = deflate.compress(header) + b"".join(deflate.compress(zeros) for _ in range(200)) + deflate.flush()
    assert len(bomb) < 1 << 19
    read_volume(gzip.compress(nifti(noise(4, 5, 6), packed=False)), VOXELS, BYTES)  # nibabel's import is not measured.
    assert _peak(bomb, max_bytes=50_000_000) < 20_000_000
    # A header that claims more than follows, or than is allowed.
    claims = patched(header, dim=[3, 1000, 1000, 40, 1, 1, 1, 1])
    assert _peak(gzip.compress(claims), max_voxels=10**9, max_bytes=10**9) < 5_000_000
    assert _peak(gzip.compress(claims), max_voxels=10**9, max_bytes=10**7) < 5_000_000
    assert _peak(gzip.compress(claims), max_voxels=10**6) < 5_000_000
    assert refusal(gzip.compress(b"") * 30_000).startswith("damaged gzip file")


def test_a_volume_is_in_memory_once():
    voxels = noise(120, 120, 100)
    data = nifti(voxels)
    read_volume(data, VOXELS, BYTES)
    tracemalloc.start()
    volume = read_volume(data, VOXELS, BYTES)
    render_volume(volume, rendering())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < voxels.nbytes + 12_000_000  # A block of half a million voxels, in some forms.


def rendering(**changes) -> Render:
    fields = {"height": 24, "width": 24, "frames": 8, "levels": "window", "window": [-200.0, 600.0], **changes}
    return Render(**fields)


def volume_of(voxels: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    return Volume(voxels, spacing, str(voxels.dtype), False)


def test_window_maps_hounsfield_units_to_1_to_255():
    voxels = np.full((8, 24, 24), -1000, np.int16)
    voxels[:, :, 12:16], voxels[:, :, 16:20], voxels[:, :, 20:] = -200, 200, 3000
    frame = render_volume(volume_of(voxels), rendering()).array[0]
    assert [int(frame[0, column]) for column in (0, 13, 17, 22)] == [1, 1, 128, 255]


@given(st.integers(1, 400), st.integers(1, 60))
def test_even_sampling_spans_the_volume(there, frames):
    taken = sample_slices(there, frames, "even")
    assert len(taken) == min(there, frames)
    assert len(set(taken)) == len(taken)
    assert taken == sorted(taken)
    assert taken[0] >= 0
    assert taken[-1] < there
    # In the middle: as much is left out before the first slice as behind the last, and gaps differ by at most one.
    assert abs(taken[0] - (there - 1 - taken[-1])) <= 1
    gaps = np.diff(taken)
    assert len(gaps) == 0 or gaps.max() - gaps.min() <= 1


def test_first_sampling_takes_the_first_ones():
    assert sample_slices(10, 4, "first") == [0, 1, 2, 3]
    assert sample_slices(3, 4, "first") == [0, 1, 2]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"levels": "percentile", "window": [1.0, 99.0]},
        {"levels": "range", "window": [], "order": "stored", "sampling": "first"},
    ],
)
@pytest.mark.parametrize("there", [3, 8, 30])
def test_only_padding_is_zero(changes, there):
    result = render_volume(volume_of(noise(there, 20, 40)), rendering(**changes))
    real = result.array.reshape(8, -1).min(axis=1) > 0
    assert real.tolist() == [place < there for place in range(8)]
    assert not result.array[min(there, 8) :].any()
    assert result.array.dtype == np.uint8
    assert ("very few slices" in result.warnings) == (there < 10)


def test_range_is_the_originals_scaling():
    voxels = noise(8, 24, 24)
    size = rendering(levels="range", window=[], order="stored", sampling="first")
    expected = np.maximum(np.rint((voxels - voxels.min()) / np.float64(int(voxels.max()) - int(voxels.min())) * 255), 1)
    assert np.array_equal(render_volume(volume_of(voxels), size).array, expected)


def test_percentiles_are_numpys():
    voxels = noise(8, 24, 24)
    low, high = np.percentile(voxels, [5, 95])
    expected = np.rint(1 + 254 * np.clip((voxels - low) / (high - low), 0, 1))
    array = render_volume(volume_of(voxels), rendering(levels="percentile", window=[5.0, 95.0])).array
    assert np.array_equal(array, expected)


def test_slices_keep_their_physical_aspect():
    """A disc of 20 mm in voxels of 1 x 2 mm stays round, in the middle, and air is beside it."""
    rows, columns = np.mgrid[0:40, 0:40]
    disc = (rows - 19.5) ** 2 + (2 * (columns - 19.5)) ** 2 <= 10**2
    voxels = np.where(disc, 600, -1000).astype(np.int16)[None].repeat(8, axis=0)
    frame = render_volume(volume_of(voxels, (1.0, 1.0, 2.0)), rendering(height=80, width=80)).array[0]
    bright = np.argwhere(frame > 128)
    tall, wide = bright.max(axis=0) - bright.min(axis=0) + 1
    assert abs(int(tall) - int(wide)) <= 2
    assert tall == pytest.approx(20, abs=2)  # 80 mm are 80 pixels.
    assert bright.mean(axis=0) == pytest.approx([39.5, 39.5], abs=1)
    assert set(frame[:18].ravel()) == {1}
    assert set(frame[62:].ravel()) == {1}
    stretched = render_volume(volume_of(voxels, (1.0, 1.0, 2.0)), rendering(height=80, width=80, order="stored")).array[0]
    bright = np.argwhere(stretched > 128)
    tall, wide = bright.max(axis=0) - bright.min(axis=0) + 1
    assert tall == pytest.approx(2 * wide, abs=3)


def test_shrinking_is_pillows_antialiased_filter():
    voxels = noise(8, 96, 96)
    array = render_volume(volume_of(voxels), rendering()).array
    levels = np.rint(1 + 254 * np.clip((voxels[3].astype(float) + 200) / 800, 0, 1)).astype(np.uint8)
    assert np.array_equal(array[3], np.asarray(Image.fromarray(levels).resize((24, 24), Image.Resampling.BILINEAR)))


def test_warnings_say_what_is_wrong():
    ct = noise(12, 20, 20)
    assert render_volume(volume_of(ct), rendering()).warnings == ()
    mr = np.abs(ct)
    assert render_volume(volume_of(mr), rendering()).warnings == ("values are not Hounsfield units",)
    assert render_volume(volume_of(mr), rendering(levels="percentile", window=[1.0, 99.0])).warnings == ()
    air = np.full((12, 20, 20), -1000, np.int16)
    air[0, 0, 0] = -999
    assert render_volume(volume_of(air), rendering()).warnings == ("the volume is blank",)
    # One slice of a sequence may hold one value where the file as a whole does not.
    still = volume_of(np.zeros((12, 20, 20), np.int16))
    blank = render_volume(still, rendering(levels="range", window=[]))
    assert blank.warnings == ("the volume is blank",)
    assert set(blank.array.ravel().tolist()) <= {0, 1}


@pytest.mark.parametrize(
    "changes",
    [{"frames": 0}, {"window": []}, {"window": [5.0, 5.0]}, {"levels": "percentile", "window": [-1.0, 99.0]}],
)
def test_settings_that_make_no_frames_are_an_error(changes):
    with pytest.raises(CardiumError, match=r"params\.yaml"):
        render_volume(volume_of(noise(8, 24, 24)), rendering(**changes))


@pytest.mark.parametrize("name", ["ct_aorta_3d", "ct_small_3d", "cine_mr_3d", "mr_small_3d"])
def test_real_volumes(name):
    file = REAL / f"{name}.nii.gz"
    if not file.is_file():
        pytest.skip(f"no {file}: the shared real volumes are not here")
    image = nib.load(file)
    volume = read_volume(file.read_bytes(), 400_000_000, 10**9)
    expected = np.asarray(nib.as_closest_canonical(image).dataobj)[::-1, ::-1, :].transpose(2, 1, 0)
    assert np.array_equal(volume.voxels, expected)
    assert volume.voxels.dtype == np.int16
    result = render_volume(volume, rendering(height=64, width=64, frames=16))
    assert result.warnings == (() if name.startswith("ct") else ("values are not Hounsfield units",))
    if name == "ct_aorta_3d":
        low = volume.voxels[: len(volume.voxels) // 5]
        tissue, bone = (low > 20) & (low < 150), low > 300
        rows, columns = low.shape[1] // 2, low.shape[2] // 2
        assert tissue[:, :, :columns].mean() > 1.1 * tissue[:, :, columns:].mean()  # The liver, on the display's left.
        assert bone[:, rows:].mean() > 2 * bone[:, :rows].mean()  # The spine, at the bottom.
        lung = (volume.voxels < -700).mean(axis=(1, 2))
        assert lung[: len(lung) // 5].mean() < lung[len(lung) // 2 :].mean()  # The chest, above the belly.


def test_plain_nifti_needs_no_name(tmp_path):
    """What nibabel saves to disk under either name reads the same."""
    image = nib.Nifti1Image(noise(5, 6, 7), np.eye(4))
    read = []
    for name in ("a.nii", "a.nii.gz"):
        nib.save(image, tmp_path / name)
        read.append(read_volume((tmp_path / name).read_bytes(), VOXELS, BYTES).voxels)
    assert np.array_equal(*read)
    assert (tmp_path / "a.nii.gz").read_bytes().startswith(b"\x1f\x8b")
