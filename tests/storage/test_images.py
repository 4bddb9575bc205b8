from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ahp_toolkit.storage import images
from ahp_toolkit.storage.images import ImageError


def picture(mode="RGB", size=(37, 23), fmt="JPEG", exif=None):
    rng = np.random.default_rng(1)
    base = Image.fromarray(rng.integers(0, 255, (size[1] // 4 + 1, size[0] // 4 + 1, 3), np.uint8)).resize(size)
    if mode == "I;16":
        base = Image.fromarray(np.asarray(base.convert("L")).astype(np.uint16) * 257)
    else:
        base = base.convert(mode)
    out = io.BytesIO()
    base.save(out, fmt, **({"exif": exif} if exif else {}))
    return out.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("mode", "fmt"),
    [("RGB", "JPEG"), ("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"), ("1", "PNG")],
)
def test_every_mode_becomes_rgb_uint8(mode, fmt):
    pixels = images.decode(picture(mode, fmt=fmt), (37, 23))
    assert pixels.shape == (23, 37, 3) and pixels.dtype == np.uint8
    assert pixels.std() > 5


def test_sixteen_bits_keep_their_grey():
    grey = images.decode(picture("L", fmt="PNG"))
    assert np.abs(images.decode(picture("I;16", fmt="PNG")).astype(int) - grey).max() <= 1


def test_the_format_is_told_by_content(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(picture(fmt="PNG"))
    assert images.read(path).shape == (23, 37, 3)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_exif_is_applied_only_where_the_annotation_asks_for_it(orientation):
    data = picture(exif=turned(orientation))
    assert images.decode(data, (37, 23)).shape == (23, 37, 3)
    assert images.decode(data, (23, 37)).shape == (37, 23, 3)
    with pytest.raises(ImageError) as e:
        images.decode(data, (50, 50))
    assert e.value.reason == "size_mismatch"


def test_every_kind_of_broken_file_has_its_reason(tmp_path):
    good = picture(size=(200, 150))
    middle = bytearray(good)
    middle[len(good) // 2 : len(good) // 2 + 40] = b"\xff\xd9" * 20
    cases = {
        "empty": b"",
        "unreadable": b"this is no picture",
        "truncated": good[: len(good) // 2],
        "corrupt": bytes(middle),
    }
    for reason, data in cases.items():
        path = tmp_path / f"{reason}.jpg"
        path.write_bytes(data)
        with pytest.raises(ImageError) as e:
            images.read(path)
        assert e.value.reason in (reason, "truncated"), reason
        assert path.name in str(e.value)
    with pytest.raises(ImageError) as e:
        images.read(tmp_path / "nowhere.jpg")
    assert e.value.reason == "missing"


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(ImageError) as e:
        images.decode(picture())
    assert e.value.reason == "too_large"


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.integers(1, 255), st.sampled_from(["JPEG", "PNG"]))
def test_a_flipped_byte_gives_pixels_or_an_image_error(position, value, fmt):
    data = bytearray(picture(fmt=fmt))
    data[position % len(data)] ^= value
    try:
        assert images.decode(bytes(data)).dtype == np.uint8
    except ImageError as e:
        assert e.reason


@pytest.mark.parametrize("shape", [(8, 9, 3), (8, 9, 4), (8, 9)])
def test_png_round_trip(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    images.write_png(tmp_path / "x.png", pixels)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), pixels)


def test_label_pictures_are_read_unchanged(tmp_path):
    labels = np.random.default_rng(0).integers(0, 20, (9, 7)).astype(np.uint8)
    images.write_palette_png(tmp_path / "p.png", labels, [0, 0, 0, 128, 0, 0] + [7] * 60)
    assert np.array_equal(images.read_labels(tmp_path / "p.png"), labels)
    with pytest.raises(ImageError):
        images.read_labels(picture(fmt="PNG"))


def coded(pixels, fmt, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, fmt, **options)
    return out.getvalue()


#: Formats with an orientation, and how they are saved with as little loss as can be.
ORIENTED = [
    ("JPEG", {"quality": 95, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}),
    ("TIFF", {"compression": "tiff_lzw"}),
    ("MPO", {"quality": 95, "subsampling": 0, "save_all": True, "append_images": [Image.new("RGB", (48, 32))]}),
]  # fmt: skip


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("fmt", "options"), ORIENTED)
def test_every_format_is_used_as_shown_unless_its_annotations_fit_the_stored_pixels(fmt, options, orientation):
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :16], stored[16:, 32:] = (250, 0, 0), (0, 250, 0)
    data = coded(stored, fmt, exif=turned(orientation), **options)
    head = images.header(data)
    assert (head.width, head.height, head.orientation) == (48, 32, orientation)
    flat = stored.transpose(1, 0, 2)  # TIFF 6.0 and EXIF 2.3, tag 274
    shown = {
        1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1],
        5: flat, 6: flat[:, ::-1], 7: flat[::-1, ::-1], 8: flat[::-1],
    }[orientation]  # fmt: skip
    assert close(images.decode(data), shown)
    assert close(images.decode(data, shown.shape[1::-1]), shown)
    if orientation < 5:
        with pytest.raises(ImageError, match="annotated as 32x48"):
            images.decode(data, (32, 48))
    else:  # annotations that fit the stored pixels alone
        assert close(images.decode(data, (48, 32)), stored)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("fmt", "options"), ORIENTED)
def test_every_format_can_be_taken_as_viewers_show_it(fmt, options, orientation):
    stored = np.zeros((32, 48, 3), np.uint8)
    stored[:16, :16], stored[16:, 32:] = (250, 0, 0), (0, 250, 0)
    png = Image.open(io.BytesIO(coded(stored, "PNG", exif=turned(orientation))))
    right = np.asarray(ImageOps.exif_transpose(png))  # Pillow's own
    assert close(images.decode(coded(stored, fmt, exif=turned(orientation), **options), shown=True), right)


def close(a, b):
    return a.shape == b.shape and np.abs(a.astype(int) - b).max() <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_labels_are_read_as_stored(orientation):
    labels = np.random.default_rng(0).integers(0, 20, (9, 7)).astype(np.uint8)
    assert np.array_equal(images.read_labels(coded(labels, "TIFF", exif=turned(orientation))), labels)


def test_a_picture_of_several_is_decoded_as_strictly_as_a_jpeg():
    """MPO, as phones write it: the first picture is the photo."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    more = {"save_all": True, "append_images": [Image.new("RGB", (64, 64))]}
    data, alone = coded(pixels, "MPO", quality=95, **more), coded(pixels, "JPEG", quality=95)
    assert images.header(data).format == "JPEG" and Image.open(io.BytesIO(data)).format == "MPO"
    assert np.array_equal(images.decode(data), images.decode(alone))
    bad = bytearray(data)
    at = data.index(b"\xff\xda") + 40
    bad[at : at + 30] = bytes(30)
    with pytest.raises(ImageError) as e:
        images.decode(bytes(bad))
    assert e.value.reason == "corrupt"
