"""A schedule: a linear rise, then the inverse square root of the step (Vaswani et al. 2017, section 5.3)."""

from multitask import SCHEDULES


@SCHEDULES.register("inverse-root")
def inverse_root(step: int, total_steps: int, warmup_steps: int) -> float:
    top = max(1, warmup_steps)
    return min((step + 1) / top, (top / (step + 1)) ** 0.5)
