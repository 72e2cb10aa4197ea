"""What a pretraining is told: one table, whose fields are the command's options."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from multitask.settings.checks import check_flag, check_integer, check_number
from multitask.settings.fields import check_settings, setting, settings_of
from multitask.settings.tables import EncoderConfig, TrainConfig

__all__ = ["PretrainConfig"]

_WEIGHTS, _DROPOUT = (settings_of(EncoderConfig)[name] for name in ("weights", "dropout"))
_SEED, _PRECISION, _EPS = (settings_of(TrainConfig)[name] for name in ("seed", "precision", "eps"))


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """How an encoder is trained to fill in masked tokens of a user's own text.

    Source: Gururangan et al. 2020 (arXiv 2004.10964), section 4: training further on the unlabelled text of the task.

    :raises ConfigError: for a value that is not allowed, with its key and what is.
    """

    weights: str | Path = setting(_WEIGHTS.help, _WEIGHTS.check, default=_WEIGHTS.default)
    epochs: int = setting("epochs to train (3)", partial(check_integer, low=1, high=1_000_000), default=3)
    batch_size: int = setting("rows of a step (32)", partial(check_integer, low=1), default=32)
    max_length: int = setting(
        "most tokens of a row (128); a longer text is cut into several rows", partial(check_integer, low=3), default=128
    )
    lr: float = setting("learning rate (1e-4)", partial(check_number, open_low=True), default=1e-4)
    whole_words: bool = setting("mask all pieces of a word together", check_flag, default=False)
    minutes: float | None = setting(
        "stop after so many minutes of training, score what was trained and finish; unset: no limit",
        partial(check_number, open_low=True),
        default=None,
    )
    seed: int = setting(_SEED.help, _SEED.check, default=_SEED.default)
    precision: str = setting(_PRECISION.help, choices=_PRECISION.choices, default=_PRECISION.default)
    dropout: float | None = setting(_DROPOUT.help, _DROPOUT.check, default=_DROPOUT.default)
    weight_decay: float = setting("of the matrices and embeddings", check_number, default=0.01)
    warmup: float = setting(
        "share of all steps in which the rate rises, in [0, 1]", partial(check_number, high=1.0), default=0.06
    )
    eps: float = setting(_EPS.help, _EPS.check, default=_EPS.default)

    def __post_init__(self) -> None:
        check_settings(self, "pretraining")
