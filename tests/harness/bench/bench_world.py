"""Scenes a second on one core, beside the floor: compositing, noise and background of the same scenes alone."""

from __future__ import annotations

import time

import numpy as np

from ahp_toolkit.sample_world import generate
from ahp_toolkit.sample_world.drawing import background, raster

SCENES = 69


def main() -> None:
    generate(0, 0)  # compile
    start = time.process_time()
    made = [generate(0, i) for i in range(SCENES)]
    spent = time.process_time() - start
    start = time.process_time()
    for s in made:
        background.paint(s.place, *s.pixels.shape[:2], np.random.Generator(np.random.PCG64(s.index)))
        for p in s.people:
            raster.over(s.clean, p.layer.rgba, p.layer.x0, p.layer.y0)
        raster.sensor(s.clean, s.noise[0], s.noise[1], np.asarray(s.noise[2]))
    floor = time.process_time() - start
    people = sum(len(s.people) for s in made)
    print(f"world: {SCENES / spent:.1f} scenes/s of 320x320 ({people / spent:.1f} people/s), target 20")
    print(f"world: {spent / floor:.1f} times the floor (background, compositing and noise alone)")


if __name__ == "__main__":
    main()
