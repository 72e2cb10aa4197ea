"""Named settings of whole runs, as data: the published ones and our own, the default.

Each preset has the schema of the TOML files (config.py): ``encoder``, ``train``, ``tasks``, and ``defaults``,
from which a user's own task starts. Where a value comes from:

- "the report": the students' report whose models these are (shared encoder, attention pooling, separate
  backward). Its tables give, per preset, the learning rates of sst / para / sts, the batch sizes and the
  decoders' dropout.
- "the course": the default project of Stanford CS224N that the report's code started from
  (github.com/gpoesia/minbert-default-final-project): AdamW's eps 1e-6, weight decay 0, 10 epochs, a constant
  rate, no clipping of gradients, dropout 0.1 in the encoder, seed 11711.
- "our choice": neither says. Pooled output under the linear decoders; mean losses; the tasks' fixed order;
  and for the two variants that the report only mentions, the settings of the preset they vary.
"""

from typing import Any

from multitask.settings.choices import DEFAULT_POOLING

__all__ = ["DEFAULT_PRESET", "PRESETS", "describe_presets", "preset_for", "preset_names", "preset_rows"]

DEFAULT_PRESET = "minilm"

# What our own has tuned for the course's files: with a training file of its own, a task of that name has the defaults.
TUNED = ("input", "start", "lr", "decoder_lr", "batch_size")

Table = dict[str, Any]
PerTask = tuple[float, float, float]

NAMES = ("sst", "para", "sts")


def _course_tasks() -> dict[str, Table]:
    """Return files, columns and labels of the course's three tasks.

    Quora's labels are spelled 0.0 and 1.0 there; predictions are to be 0 or 1.
    """

    def files(stem: str) -> Table:
        return {split: f"{stem}-{end}.csv" for split, end in SPLITS}

    pair = {"text": ["sentence1", "sentence2"], "id": "id"}
    return {
        "sst": {
            **files("ids-sst"),
            "text": ["sentence"],
            "label": "sentiment",
            "id": "id",
            "kind": "classification",
            "labels": ["0", "1", "2", "3", "4"],
        },
        "para": {**files("quora"), **pair, "label": "is_duplicate", "kind": "binary", "labels": ["0", "1"]},
        "sts": {**files("sts"), **pair, "label": "similarity", "kind": "regression", "labels": [0.0, 5.0]},
    }


SPLITS = (("train", "train"), ("dev", "dev"), ("test", "test-student"))


def _published(
    about: str,
    *,
    update: str,
    lr: PerTask,
    batch: int,
    para_batch: int,
    dropout: float,
    input: str = "joint",
    pooling: str = "pooler",
    own_encoders: bool = False,
) -> Table:
    """Return a row of the report's tables on bert-base-uncased; ``batch`` is that of sst and sts."""
    shape: Table = {
        "input": input,
        "pooling": pooling,
        "head": "linear",
        "start": "random",
        "dropout": dropout,
        "reduction": "mean",
        "loss_weight": 1.0,
        "decoder_lr": None,
        "weight_decay": 0.0,
    }
    tasks = _course_tasks()
    for name, rate in zip(NAMES, lr, strict=True):
        tasks[name] |= shape | {
            "lr": rate,
            "batch_size": para_batch if name == "para" else batch,
            "encoder": name if own_encoders else "shared",
        }
    return {
        "about": about,
        "encoder": {"weights": "bert-base-uncased", "dropout": 0.1, "freeze": False},
        "train": {
            "update": update,
            "epochs": 10,
            "rounds": None,
            "min_rounds": None,
            "seed": 11711,
            "schedule": "constant",
            "warmup": 0.0,
            "precision": "auto",
            "clip": None,
            "task_order": "fixed",
            "eps": 1e-6,
        },
        # No lr and no batch_size: the report has none for a task that is not its own, so the user says.
        "defaults": shape | {"encoder": "{name}" if own_encoders else "shared"},
        "tasks": tasks,
    }


def _with_cosine(preset: Table) -> Table:
    """Score sts by the cosine of two mean-pooled encodings, 2.5 (1 + cos), as the report tried."""
    preset["tasks"]["sts"] |= {"input": "separate", "pooling": "mean", "head": "cosine"}
    return preset


def _ours(weights: str, *, default_lr: float, lr: PerTask, decoder_lr: float, epochs: int) -> Table:
    """Return our own settings for sentence encoders on two CPU cores.

    The pooler of these weights is as good as untrained: attention pooling learns from the hidden states.
    Batches of 32 / 53 / 22 make 267 rounds of each file an epoch of 14,213 Quora pairs.

    :param default_lr: of a user's own tasks, and the last two are of the course's.
    """
    shape: Table = {
        "pooling": None,  # attention
        "head": "linear",
        "dropout": 0.3,
        "reduction": "mean",
        "loss_weight": 1.0,
        "weight_decay": 0.0,
        "encoder": "shared",
    }
    tuned: Table = {"input": "joint", "start": "random", "decoder_lr": decoder_lr}
    tasks = _course_tasks()
    for name, rate, batch_size in zip(NAMES, lr, (32, 53, 22), strict=True):
        tasks[name] |= shape | tuned | {"lr": rate, "batch_size": batch_size}
    return {
        "about": f"our own, tuned for {weights}",
        "encoder": {"weights": weights, "dropout": 0.1, "freeze": False},
        "train": {
            "update": "separate",
            "epochs": epochs,
            "rounds": None,
            "min_rounds": 60,
            "seed": 11711,
            "schedule": "linear",
            "warmup": 0.06,
            "precision": "auto",
            "clip": None,
            "task_order": "fixed",
            "eps": 1e-6,
        },
        "defaults": shape | dict.fromkeys(TUNED) | {"start": "probe", "lr": default_lr},
        "tuned": TUNED,
        "tasks": tasks,
    }


PRESETS: dict[str, Table] = {
    "minilm": _ours("all-minilm-l6-v2", default_lr=5e-5, lr=(5e-5, 5e-5, 5e-5), decoder_lr=2e-4, epochs=3),
    "mpnet": _ours("all-mpnet-base-v2", default_lr=3e-5, lr=(2e-5, 3e-5, 3e-5), decoder_lr=1e-4, epochs=2),
    "slt": _published(
        "one encoder per task, separate input (the report)",
        update="separate",
        lr=(1e-6, 1e-5, 1e-5),
        batch=32,
        para_batch=32,
        dropout=0.3,
        input="separate",
        own_encoders=True,
    ),
    "slt-concat": _published(
        "one encoder per task, joint input (our control)",
        update="separate",
        lr=(1e-6, 1e-5, 1e-5),
        batch=32,
        para_batch=32,
        dropout=0.3,
        own_encoders=True,
    ),
    "mtl-clb-sep": _published(
        "shared encoder, one backward over the summed losses, separate input (the report)",
        update="combined",
        lr=(2e-6, 2e-6, 2e-6),
        batch=32,
        para_batch=32,
        dropout=0.3,
        input="separate",
    ),
    "mtl-clb-concat": _published(
        "the same with joint input (the report)",
        update="combined",
        lr=(2e-6, 2e-6, 2e-6),
        batch=30,
        para_batch=150,
        dropout=0.5,
    ),
    "mtl-slb-concat": _published(
        "separate backward and optimizers (the report)",
        update="separate",
        lr=(1e-6, 3e-6, 2e-6),
        batch=30,
        para_batch=150,
        dropout=0.5,
    ),
    "mtl-slb-concat-attn": _published(
        "the same with attention pooling (the report's best)",
        update="separate",
        lr=(1e-7, 1e-5, 1e-6),
        batch=30,
        para_batch=150,
        dropout=0.5,
        pooling="attention",
    ),
    "mtl-slb-cosine": _with_cosine(
        _published(
            "cosine for sts (tried in the report; rates and batches of mtl-slb-concat: our choice)",
            update="separate",
            lr=(1e-6, 3e-6, 2e-6),
            batch=30,
            para_batch=150,
            dropout=0.5,
        )
    ),
    "mtl-pcgrad": _published(
        "gradient surgery (tried in the report; rates and batches of mtl-clb-concat: our choice)",
        update="pcgrad",
        lr=(2e-6, 2e-6, 2e-6),
        batch=30,
        para_batch=150,
        dropout=0.5,
    ),
}


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, the default first."""
    return tuple(PRESETS)


def preset_for(weights: object) -> str:
    """Return the preset that is tuned for an encoder's weights, by their name or hub id, else the default."""
    called = str(weights).lower().removeprefix("sentence-transformers/")
    return next(
        (name for name, preset in PRESETS.items() if "tuned" in preset and preset["encoder"]["weights"] == called),
        DEFAULT_PRESET,
    )


def preset_rows() -> list[tuple[str, ...]]:
    """Return a table's header and a row for each preset, with tasks' values in the order sst / para / sts."""
    head = (
        "preset",
        "weights",
        "update",
        "input",
        "pooling",
        "lr",
        "batch",
        "dropout",
        "epochs",
        "what it is",
    )
    rows: list[tuple[str, ...]] = [head]
    for name, preset in PRESETS.items():
        tasks = [preset["tasks"][task] for task in NAMES]

        def each(key: str, tasks: list[Table] = tasks) -> str:
            values = [f"{task[key]:g}" if isinstance(task[key], float) else str(task[key]) for task in tasks]
            values = [DEFAULT_POOLING if value == "None" else value for value in values]  # each has a pooler
            return values[0] if len(set(values)) == 1 else " / ".join(values)

        about = preset["about"] + (", the default" if name == DEFAULT_PRESET else "")
        columns = [name, preset["encoder"]["weights"], preset["train"]["update"]]
        columns += [each(key) for key in ("input", "pooling", "lr", "batch_size", "dropout")]
        rows.append((*columns, str(preset["train"]["epochs"]), about))
    return rows


def describe_presets() -> str:
    """Return the table of presets as aligned text."""
    rows = preset_rows()
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)
