"""Shapes, crops and size limits of a dataset."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltx2core.data.buckets import BucketRule, place
from ltx2core.data.clip import Clip, Crop, Sample
from ltx2core.data.crops import CropRule, SizeLimits, cropped_size, measure


def clip(width: int = 1920, height: int = 1080, name: str = "a.png") -> Clip:
    return Clip(path=Path(name), width=width, height=height, frames=1, still=True, caption="words")


def placed(found: Clip, **rule: object) -> Sample | Clip:
    return place(found, BucketRule(**{"resolution": 512, **rule}))  # type: ignore[arg-type]


def label(item: Sample | Clip) -> str:
    return item.bucket.label if isinstance(item, Sample) else item.problems[-1].code


def test_crop_aspects_mean_what_their_names_say() -> None:
    shapes = (1.0, 1.5, 0.75)
    assert label(placed(clip())) == "896x512@1"
    assert label(placed(clip(), crop=CropRule(aspect="preserve"))) == "896x512@1"
    assert label(placed(clip(), crop=CropRule(aspect="square"))) == "512x512@1"
    assert label(placed(clip(), crop=CropRule(aspect="closest", aspects=shapes))) == "768x512@1"
    assert label(placed(clip(1080, 1920), crop=CropRule(aspect="closest", aspects=shapes))) == "512x672@1"
    square = placed(clip(), crop=CropRule(aspect="square"), resolution=0.26, resolution_type="area")
    assert label(square) == "512x512@1"


def test_shapes_by_chance_are_all_used_and_each_file_keeps_its_own() -> None:
    rule = CropRule(aspect="random", aspects=(1.0, 1.5, 0.75))
    labels = [label(placed(clip(name=f"{n}.png"), crop=rule, seed=3)) for n in range(60)]
    assert set(labels) == {"512x512@1", "768x512@1", "512x672@1"}
    assert labels == [label(placed(clip(name=f"{n}.png"), crop=rule, seed=3)) for n in range(60)]
    assert labels != [label(placed(clip(name=f"{n}.png"), crop=rule, seed=4)) for n in range(60)]


def test_crop_styles_keep_the_middle_the_corner_or_a_place_by_seed() -> None:
    def crop(style: str, seed: int = 0, name: str = "a.png") -> Crop:
        item = placed(clip(name=name), crop=CropRule(style=style), seed=seed)  # type: ignore[arg-type]
        assert isinstance(item, Sample)
        return item.crop

    assert crop("center") == Crop(across=0.5, down=0.5)
    assert crop("corner") == Crop(across=0.0, down=0.0)
    assert crop("random") == crop("random")
    assert len({crop("random", seed, name) for seed in (0, 1) for name in ("a.png", "b.png")}) == 4


def test_a_large_picture_is_cut_from_the_size_it_is_shrunk_to() -> None:
    rule = CropRule(aspect="square", largest=1536, shrunk=1280)
    large = placed(clip(4000, 3000), resolution=1024, resolution_type="pixel_area", crop=rule)
    assert isinstance(large, Sample)
    assert large.bucket.label == "1024x1024@1"
    short = (1280**2 * 3 / 4) ** 0.5  # of the picture at 1280^2 pixels, whose shape is kept
    assert large.crop.zoom == pytest.approx(short / 1024, rel=1e-3)
    small = placed(clip(1500, 1400), resolution=1024, resolution_type="pixel_area", crop=rule)
    assert isinstance(small, Sample)
    assert small.crop.zoom == 1.0


def test_files_that_are_too_small_or_of_another_shape_are_left_out_by_name() -> None:
    assert label(placed(clip(768, 1024), sizes=SizeLimits(smallest=1024))) == "too_small"
    assert label(placed(clip(1024, 1024), sizes=SizeLimits(smallest=1024))) == "512x512@1"
    by_area = SizeLimits(smallest=1024)
    assert label(placed(clip(1280, 960), resolution_type="pixel_area", sizes=by_area)) != "too_small"
    assert label(placed(clip(1280, 700), resolution_type="pixel_area", sizes=by_area)) == "too_small"
    assert label(placed(clip(1280, 700), resolution=0.26, resolution_type="area", sizes=SizeLimits(smallest=1.0))) == "too_small"
    shapes = SizeLimits(narrowest=0.5, widest=1.5)
    assert label(placed(clip(400, 1000), sizes=shapes)) == "wrong_aspect"
    assert label(placed(clip(), sizes=shapes)) == "wrong_aspect"
    item = placed(clip(), sizes=shapes)
    assert isinstance(item, Clip)
    assert "a.png is 1920x1080, a shape of 1.78; maximum_aspect_ratio is 1.5" in item.problems[0].text
    assert item.problems[0].fix


def test_shapes_that_would_enlarge_too_much_are_not_used() -> None:
    rule = CropRule(aspect="closest", aspects=(1.0, 2.0), most_enlarged=0.2)
    assert label(placed(clip(450, 450), crop=rule)) == "512x512@1"  # 14 %
    assert label(placed(clip(900, 450), crop=rule)) == "1024x512@1"
    assert label(placed(clip(256, 256), crop=rule)) == "no_crop_shape"
    assert label(placed(clip(256, 256), crop=replace(rule, most_enlarged=None))) == "512x512@1"


@given(
    width=st.integers(1, 8192),
    height=st.integers(1, 8192),
    resolution=st.floats(32, 2048),
    kind=st.sampled_from(["pixel", "pixel_area", "area"]),
    aspect=st.sampled_from(["square", "preserve", "closest", "random"]),
    style=st.sampled_from(["center", "corner", "random"]),
    largest=st.none() | st.floats(1, 4096),
    shrunk=st.floats(1, 4096),
    seed=st.integers(0, 9),
)
def test_every_crop_lies_inside_its_picture(width, height, resolution, kind, aspect, style, largest, shrunk, seed) -> None:
    resolution = resolution / 1000 if kind == "area" else resolution
    rule = CropRule(aspect=aspect, style=style, aspects=(0.5, 1.0, 1.8), largest=largest, shrunk=None if largest is None else shrunk)
    item = placed(clip(width, height), resolution=resolution, resolution_type=kind, crop=rule, seed=seed)
    assert isinstance(item, Sample)
    picture = item.picture
    assert picture is not None
    assert 0 <= item.crop.across <= 1
    assert 0 <= item.crop.down <= 1
    assert item.crop.zoom >= 1
    scale = max(picture.width / width, picture.height / height) * item.crop.zoom
    assert picture.width <= width * scale + 1
    assert picture.height <= height * scale + 1
    assert scale <= max(1.0, picture.width / width, picture.height / height) + 1e-6  # nothing is enlarged for the sake of a crop
    size = cropped_size(item.clip, rule, resolution=resolution, resolution_type=kind, seed=seed)
    assert size == (picture.width, picture.height)


def test_sizes_are_measured_in_the_unit_of_resolution_type() -> None:
    assert measure(clip(1000, 4000), "pixel") == 1000
    assert measure(clip(1000, 4000), "area") == 4.0
    assert measure(clip(1000, 4000), "pixel_area") == 2000
