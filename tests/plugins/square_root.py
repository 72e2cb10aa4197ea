"""A sampler: a round is one batch of one task, drawn in proportion to the square root of the task's rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from multitask import SAMPLERS


@SAMPLERS.register("square-root")
class SquareRootSampler:
    def __init__(
        self, sizes: Mapping[str, int], batch_sizes: Mapping[str, int], *, rounds: int | None, seed: int, **_: Any
    ) -> None:
        self.sizes, self.batch_sizes, self.seed = sizes, batch_sizes, seed
        self.rounds_per_epoch = rounds or sum(size // batch_sizes[name] for name, size in sizes.items())
        roots = np.sqrt(list(sizes.values()))
        self.shares = roots / roots.sum()

    def round(self, epoch: int, index: int) -> dict[str, np.ndarray]:
        generator = np.random.default_rng((self.seed, epoch, index))
        name = str(generator.choice(list(self.sizes), p=self.shares))
        rows = min(self.batch_sizes[name], self.sizes[name])
        return {name: generator.choice(self.sizes[name], rows, replace=False)}
