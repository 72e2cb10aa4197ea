"""A metric: the root of the mean squared error, of which less is better."""

import numpy as np

from multitask import METRICS


@METRICS.register("rmse", greater_is_better=False, labels="numbers")
def rmse(predictions: np.ndarray, labels: np.ndarray) -> float:
    return float(np.sqrt(np.mean((predictions - labels) ** 2)))
