"""The settings of a run that are no task's: the tables ``[encoder]`` and ``[train]`` of config.py's schema."""

from dataclasses import dataclass, fields

from multitask.settings.checks import check_choice, check_flag, check_integer, check_number, check_string

__all__ = ["KEYS", "EncoderConfig", "TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Which encoder every task's encoder starts from.

    weights: a name that minbert.registry knows, a hub id or a folder. dropout: rate in [0, 1) inside the
    encoder (None: as the weights' config.json says). freeze: only the decoders learn.
    """

    weights: str
    dropout: float | None = None
    freeze: bool = False

    def __post_init__(self) -> None:
        check_string("encoder.weights", self.weights)
        if self.dropout is not None:
            rate = check_number("encoder.dropout", self.dropout, high=1.0, open_high=True)
            object.__setattr__(self, "dropout", rate)
        check_flag("encoder.freeze", self.freeze)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the tasks are trained together.

    update: "separate" (one backward and step per task: the report's Algorithm 1), "combined" (one over the
    summed losses) or "pcgrad". rounds: per epoch (None: the smallest rows // batch_size over the tasks).
    warmup: share in [0, 1] of all rounds in which the rate rises. clip: largest gradient norm (None: no
    clipping). eps: of AdamW. on_nonfinite: "stop" the run at a loss or gradient that is not finite, or "skip" the
    step that it would have led to.
    """

    update: str = "separate"
    epochs: int = 3
    rounds: int | None = None
    seed: int = 11711
    schedule: str = "constant"
    warmup: float = 0.0
    precision: str = "auto"
    clip: float | None = None
    task_order: str = "fixed"
    eps: float = 1e-6
    on_nonfinite: str = "stop"

    def __post_init__(self) -> None:
        check_choice("train.update", self.update, ("separate", "combined", "pcgrad"))
        check_integer("train.epochs", self.epochs, low=1)
        if self.rounds is not None:
            check_integer("train.rounds", self.rounds, low=1)
        check_integer("train.seed", self.seed, high=2**63 - 1)
        check_choice("train.schedule", self.schedule, ("constant", "linear", "cosine"))
        object.__setattr__(self, "warmup", check_number("train.warmup", self.warmup, high=1.0))
        check_choice("train.precision", self.precision, ("auto", "float32", "bfloat16"))
        if self.clip is not None:
            object.__setattr__(self, "clip", check_number("train.clip", self.clip, open_low=True))
        check_choice("train.task_order", self.task_order, ("fixed", "shuffled"))
        object.__setattr__(self, "eps", check_number("train.eps", self.eps, open_low=True))
        check_choice("train.on_nonfinite", self.on_nonfinite, ("stop", "skip"))


KEYS = {
    "encoder": tuple(field.name for field in fields(EncoderConfig)),
    "train": tuple(field.name for field in fields(TrainConfig)),
}
