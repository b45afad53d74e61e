"""Scenes: what they say is in them is in them."""

from __future__ import annotations

import numpy as np

from holdfast.data.world import COLORS, SHAPES, world_scene


def test_the_same_names_draw_the_same_scene_and_others_another():
    first, again, other = world_scene(1, "a", 2), world_scene(1, "a", 2), world_scene(1, "b", 2)
    assert (first.image.tobytes(), first.things) == (again.image.tobytes(), again.things)
    assert first.image.tobytes() != other.image.tobytes()


def test_every_thing_lies_in_its_cell_and_shows_its_color_in_the_middle():
    for index in range(200):
        scene = world_scene(0, "things", index)
        assert 1 <= len(scene.things) <= 4
        for place, color, shape, (x1, y1, x2, y2) in scene.things:
            row, column = divmod(place, 2)
            assert shape in SHAPES
            assert column * 32 <= x1 < x2 < (column + 1) * 32
            assert row * 32 <= y1 < y2 < (row + 1) * 32
            assert scene.image.getpixel(((x1 + x2) // 2, (y1 + y2) // 2 + 1)) == COLORS[color]


def test_a_cell_without_a_thing_is_known_to_be_empty():
    scene = world_scene(0, "cells", 3)
    assert sum(scene.at(place) is not None for place in range(4)) == len(scene.things)


def test_scenes_get_darker_to_the_right_and_browner_to_the_ground():
    pixels = np.mean([np.asarray(world_scene(0, "light", i).image, dtype=float) for i in range(50)], axis=0)
    brightness = pixels.mean(axis=(0, 2))
    assert brightness[:8].mean() > brightness[-8:].mean() * 1.3
    blueness = (pixels[..., 2] - pixels[..., 0]).mean(axis=1)
    assert blueness[:8].mean() > 0 > blueness[-8:].mean()
