"""Random split of images into training and validation."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping


def draw(keys: Mapping[str, str | None], fraction: float, seed: int) -> set[str]:
    """Draw the validation images, the given fraction of every group.

    The same names, groups and seed give the same images. scikit-learn's stratified splits refuse groups of one image,
    which user data often have.

    Args:
        keys: Name of each image to its group, such as its class.
        fraction: Fraction of images to draw; at least one image is drawn, and one left.
        seed: Random seed.

    Returns:
        Names of the validation images. Where the fraction of a group is not a whole number, the groups with the largest
        remainder get one more; the only image of a group is not drawn while others remain.
    """
    generator = random.Random(seed)
    groups: dict[str | None, list[str]] = defaultdict(list)
    for name in sorted(keys):
        groups[keys[name]].append(name)
    number = min(max(round(fraction * len(keys)), 1), len(keys) - 1)
    drawn: list[str] = []
    rest: list[tuple[float, str]] = []
    for key in sorted(groups, key=str):
        names = groups[key]
        generator.shuffle(names)
        share = fraction * len(names)
        count = min(int(share), number - len(drawn))
        drawn += names[:count]
        # Next come one more of each group by its remainder, then all others; the last one of a group comes last.
        for index, name in enumerate(names[count:]):
            is_last = index == len(names) - count - 1
            rest.append((-(share - count) + index + (1000.0 if is_last else 0.0), name))
    rest.sort(key=lambda item: item[0])
    return set(drawn) | {name for _, name in rest[: number - len(drawn)]}
