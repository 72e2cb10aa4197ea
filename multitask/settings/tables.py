"""The settings of a run that no task owns: the tables ``[encoder]`` and ``[train]`` of config.py's schema."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from multitask.settings.checks import check_flag, check_integer, check_number, check_string
from multitask.settings.choices import OPTIMIZERS, SAMPLERS, SCHEDULES, UPDATES
from multitask.settings.fields import check_settings, setting

__all__ = ["EncoderConfig", "TrainConfig", "weights_beside"]


def weights_beside(folder: Path, weights: str) -> str:
    """Return a folder of weights, relative to ``folder``, as an absolute path; names and hub ids as they are.

    What starts like a path is one; else it is a folder if there is one, as minbert.files.registry has it.
    """
    if not weights or "\0" in weights:
        return weights
    beside = os.path.join(folder, os.path.expanduser(weights))
    is_path = weights.startswith(("./", "../", "~")) or weights in (".", "..") or os.path.isdir(beside)
    return os.path.abspath(beside) if is_path else weights


def _check_weights(key: str, value: Any) -> str:
    return weights_beside(Path(), check_string(key, str(value) if isinstance(value, Path) else value))


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Which encoder every task's encoder starts from; what is left out is as in the default preset.

    :raises ConfigError: for a value that is not allowed, with its key and what is.
    """

    weights: str | Path = setting(
        "name, hub id or folder of the encoder's weights", _check_weights, default="all-minilm-l6-v2", option=True
    )
    dropout: float | None = setting(
        "rate inside the encoder, in [0, 1); unset: as in the weights' config.json",
        partial(check_number, high=1.0, open_high=True),
        default=0.1,
    )
    freeze: bool = setting("train the decoders alone", check_flag, default=False)
    checkpoint_layers: bool = setting(
        "keep only each layer's input for the backward pass, which computes the layer again: less memory, more time",
        check_flag,
        default=False,
    )

    def __post_init__(self) -> None:
        check_settings(self, "encoder")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the tasks are trained together; what is left out is as in the default preset.

    :raises ConfigError: for a value that is not allowed, with its key and what is.
    """

    update: str = setting(
        "one backward pass and step per task (the report's Algorithm 1); one step over the summed losses; or one after"
        " gradient surgery, by learned uncertainties, by how fast losses fall, or in a direction that harms no task",
        choices=UPDATES,
        default="separate",
    )
    optimizer: str = setting(
        "minbert's own AdamW, torch's, or gradient descent with momentum 0.9", choices=OPTIMIZERS, default="adamw"
    )
    moments: str = setting(
        "the optimizer's moments of a shared encoder under separate updates: each task has its own, as in the report,"
        " or all tasks share one set, which needs less memory; decoders keep their own",
        choices=("own", "shared"),
        default="own",
    )
    accumulate: int = setting(
        "parts that each batch is computed in, one after another, to need less memory; the step is that of the whole"
        " batch",
        partial(check_integer, low=1),
        default=1,
    )
    epochs: int = setting("epochs to train", partial(check_integer, low=1, high=1_000_000), default=3, option=True)
    rounds: int | None = setting(
        "rounds in an epoch; unset: the smallest `rows // batch_size` over the tasks, but see `min_rounds`",
        partial(check_integer, low=1),
        default=None,
        option=True,
    )
    min_rounds: int | None = setting(
        "rounds of all epochs together, at least: few rows are passed over several times in an epoch; where `rounds` is"
        " set it does not count",
        partial(check_integer, low=1),
        default=60,
    )
    hold_out: bool | None = setting(
        "hold out a tenth of the training rows of tasks without a dev file; unset: of 200 rows or more; tasks without"
        " dev rows train on all rows, and their first decoder's score is cross-validated",
        check_flag,
        default=None,
    )
    minutes: float | None = setting(
        "stop after so many minutes of training and scoring, score what was trained and finish; unset: no limit",
        partial(check_number, open_low=True),
        default=None,
        option=True,
    )
    patience: int | None = setting(
        "stop after so many epochs without a better dev score (see `--select`); unset: train all epochs",
        partial(check_integer, low=1),
        default=None,
        option=True,
    )
    seed: int = setting(
        "the one seed of everything drawn", partial(check_integer, high=2**63 - 1), default=11711, option=True
    )
    schedule: str = setting("of the learning rate after the warm-up", choices=SCHEDULES, default="linear")
    warmup: float = setting(
        "share of all rounds in which the rate rises, in [0, 1]", partial(check_number, high=1.0), default=0.06
    )
    precision: str = setting(
        "of the matrix products; auto asks the machine what it is fast at, and says what it chose",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        option=True,
    )
    clip: float | None = setting(
        "largest gradient norm; unset: no clipping", partial(check_number, open_low=True), default=None
    )
    sampler: str = setting(
        "which rows of which tasks make a round: a batch of each task", choices=SAMPLERS, default="rounds"
    )
    task_order: str = setting(
        "of the tasks in a round: as the file has them, or shuffled anew",
        choices=("fixed", "shuffled"),
        default="fixed",
    )
    log_conflict: bool = setting(
        "log in each round the cosines between the tasks' gradients of the encoder that they share; costs a copy of it"
        " per task, and changes nothing that is trained",
        check_flag,
        default=False,
        option=True,
    )
    eps: float = setting("of AdamW", partial(check_number, open_low=True), default=1e-6)
    on_nonfinite: str = setting(
        "at a loss or gradient that is not finite: stop the run, or skip the step",
        choices=("stop", "skip"),
        default="stop",
        option=True,
    )

    def __post_init__(self) -> None:
        check_settings(self, "train")
