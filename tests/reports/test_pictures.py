"""The drawings and pictures of the pages."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from matplotlib.image import imread, imsave

from fmrisynth.reports import drawings
from fmrisynth.reports.slices import draw_carpet, draw_large_matrix, draw_slices, png_uri

NASTY = "<script>alert('$x_1$')</script>&"


def test_slices_do_not_depend_on_how_the_volume_is_stored():
    rng = np.random.default_rng(0)
    volume, values = 1 + rng.random((2, 8, 9, 10))
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    flipped = affine @ np.diag([-1.0, 1.0, -1.0, 1.0])
    flipped[:3, 3] = (affine @ [7, 0, 9, 1])[:3]
    turned = affine[:, [1, 0, 2, 3]]
    straight = draw_slices(volume, values, affine, limit=2.0)
    mirrored = draw_slices(volume[::-1, :, ::-1], values[::-1, :, ::-1], flipped, limit=2.0)
    swapped = draw_slices(volume.transpose(1, 0, 2), values.transpose(1, 0, 2), turned, limit=2.0)
    assert straight.image == mirrored.image == swapped.image
    assert straight.heights == pytest.approx(mirrored.heights)


def test_one_scale_for_all_maps():
    volume = np.ones((6, 6, 6))
    weak, strong = (
        draw_slices(volume, scale * volume, np.eye(4), limit=1.0).image for scale in (0.5, 1.0)
    )
    beyond = draw_slices(volume, 3.0 * volume, np.eye(4), limit=1.0).image
    assert weak != strong
    assert strong == beyond


def test_names_are_text_and_not_formulas():
    svg = drawings.draw_matrix(np.eye(2), [NASTY, "b $"], label=NASTY, low=0, high=1)
    assert "<script" not in svg
    assert "$" in svg


def test_a_matrix_of_many_participants_is_a_picture_with_some_names():
    names = [f"{n:03d}" for n in range(250)]
    matrix = np.random.default_rng(0).normal(size=(250, 250))
    svg = drawings.draw_matrix(matrix, names, label="many", low=-1, high=1)
    assert len(svg) < 10 * matrix.size  # bytes
    assert ">000<" in svg
    assert sum(f">{name}<" in svg for name in names) < 60


def test_charts_take_the_ink_of_the_page():
    svg = drawings.draw_spectra({"a": np.ones(4) / 4}, 0.25, {"a": "#0072b2"})
    assert "currentColor" in svg
    assert "#010203" not in svg


def test_many_dots_are_thinned_but_not_their_ends():
    values = np.random.default_rng(0).normal(size=20_000)
    svg = drawings.draw_dots({"a": values}, "x", {"a": "#000000"}, "many")
    assert len(svg) < 100_000
    drawn = drawings._thinned(values)
    assert drawn.min() == values.min()
    assert drawn.max() == values.max()
    assert np.median(drawn) == pytest.approx(np.median(values), abs=0.02)


def test_large_matrices_share_their_scale():
    weak, strong, beyond = (draw_large_matrix(scale * np.eye(4), 1.0) for scale in (0.5, 1.0, 3.0))
    assert weak != strong
    assert strong == beyond


def test_only_png_of_reasonable_size_are_inlined(tmp_path):
    curves = tmp_path / "curves.png"
    imsave(curves, np.zeros((3, 4, 3)))
    assert png_uri(curves).startswith("data:image/png;base64,")
    html = tmp_path / "page.png"
    html.write_text("<script>")
    assert png_uri(html) is None
    assert png_uri(tmp_path / "none.png") is None
    with html.open("wb") as stream:
        stream.write(curves.read_bytes())
        stream.truncate(2**30)
    assert png_uri(html) is None


def test_carpet_has_a_pixel_for_each_volume():
    rows = np.random.default_rng(0).normal(size=(500, 37))
    uri = draw_carpet(rows, limit=2.0, most_rows=100)
    picture = imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert picture.shape[:2] == (100, 37)
