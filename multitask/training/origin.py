"""A run that another one begins from: its encoders, its tokenizer and the decoders that still fit."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from minbert.model import BertModel
from minbert.tokenizer import BertTokenizer
from multitask.errors import ConfigError, RunError
from multitask.model.build import build_model
from multitask.model.model import MultitaskModel, best_folder, fit_buffers
from multitask.run import Run, read_config, recorded_tasks
from multitask.settings.checks import shown
from multitask.settings.config import EncoderConfig, RunConfig
from multitask.settings.task import INPUTS, Task
from multitask.training.identity import known_identity

__all__ = ["Origin", "Start", "base_config", "begin_from", "keep_thresholds"]

# What a decoder's weights mean depends on, beside the number of texts and how a pair is encoded.
_MEANING = ("kind", "labels", "pooling", "head", "encoder")
# What decides which rows of a file are held out of it, beside the seed and the tasks that share it.
_HELD_BY = ("text", "label", "label_separator", "kind", "labels", "missing", "group", "format")
_TRIES = 3


@dataclass
class Start:
    """The model that a run begins with.

    :param origin: what record.json says of the other run: among it, by name, the encoders and decoders that were
        ``taken`` from it, and those that are ``new``, with the reason. None where there is no other run.
    :param notes: the same for people.
    """

    model: MultitaskModel
    tokenizer: BertTokenizer
    origin: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def new_decoders(self) -> list[str]:
        """The tasks whose decoders have no weights from another run."""
        return list(self.model.tasks) if self.origin is None else list(self.origin["new"]["decoders"])


class Origin:
    """The best epoch so far of a run, held in memory: its folder may change meanwhile.

    ``digest`` is the SHA-256 of its tensors, ``best`` the number and the dev scores of the epoch, where they are known.
    """

    def __init__(self, run: Run, best: Mapping[str, Any]) -> None:
        self.run, self.folder, self.best = run, run.folder, best
        self.digest = _digest_of(run.model.state_dict())

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a run folder; RunError or WeightsError if it holds no whole run, ConfigError as for its settings."""
        for _ in range(_TRIES):  # a run that is still trained replaces its best epoch
            place = best_folder(folder) if folder.is_dir() else folder
            before = place.stat().st_ino if place.is_dir() else None
            origin = cls(Run.load(folder, device="cpu", precision="float32"), _scores_of(place))
            if place.is_dir() and place.stat().st_ino == before:
                return origin
        raise RunError(f"{folder}: the best epoch changes while it is read; try again")

    def build(
        self,
        config: RunConfig,
        data: Mapping[str, Mapping[str, str]],
        held_with: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> Start:
        """Build the model of a configuration, with every encoder and decoder of this run that it has, too.

        What is new draws its weights from torch's default generator.

        :param data: the digests of the new run's rows, by task and split.
        :param held_with: as in Prepared, of the tasks that have dev rows.
        """
        old = self.run.model
        names = list(dict.fromkeys(task.encoder for task in config.tasks))
        lacking = [name for name in names if name not in old.encoders]
        fresh: Mapping[str, nn.Module] = {}
        if lacking:
            only = replace(config, tasks=tuple(task for task in config.tasks if task.encoder in lacking))
            fresh = dict(build_model(only)[0].encoders.items())
        encoders = {
            name: _as_encoder(fresh[name]) if name in fresh else self._encoder(name, config.encoder) for name in names
        }
        sizes = {name: encoder.config.vocab_size for name, encoder in encoders.items()}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"encoders must have one vocabulary, got {shown(sizes)}")
        model = MultitaskModel(encoders, config.tasks)
        reasons = {
            name: self._difference(task) or _take(model.decoders[name], old.decoders[name])
            for name, task in model.tasks.items()
        }
        taken = {
            "encoders": [name for name in names if name not in lacking],
            "decoders": [name for name, why in reasons.items() if not why],
        }
        new = {
            "encoders": dict.fromkeys(lacking, "there is none of its name"),
            "decoders": {name: why for name, why in reasons.items() if why},
        }
        thresholds = {
            name: old.tasks[name].threshold
            for name in taken["decoders"]
            if config.task(name).threshold is None and old.tasks[name].threshold is not None
        }
        record = {"folder": str(self.folder.resolve()), "sha256": self.digest, **self.best, "taken": taken, "new": new}
        record |= {"thresholds": thresholds} if thresholds else {}
        notes = [self._said(taken, new), *self.seen_rows(config, data, held_with)]
        return Start(model, self.run.tokenizer, record, notes)

    def _encoder(self, name: str, settings: EncoderConfig) -> BertModel:
        """Return a copy of an encoder with a configuration's dropout."""
        old, rate = _as_encoder(self.run.model.encoders[name]), settings.dropout
        config = old.config
        if rate is not None:
            config = replace(config, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate)
        encoder = BertModel(config, old.pooler is not None)
        encoder.load_state_dict(old.state_dict())
        encoder.load_report = old.load_report
        encoder.requires_grad_(not settings.freeze)
        encoder.checkpoint_layers = settings.checkpoint_layers
        return encoder.eval()

    def _difference(self, task: Task) -> str:
        """Say why a task's decoder can't be the old one; "" if it can."""
        old = self.run.model.tasks.get(task.name)
        if old is None:
            return "there is none of its name"
        if len(task.text) != len(old.text):
            return f"texts are {len(task.text)}, were {len(old.text)}"
        if task.encodings != old.encodings:
            names = {encodings: name for name, encodings in INPUTS.items()}
            return f"input is {names[task.encodings]}, was {names[old.encodings]}"
        for key in _MEANING:
            now, before = getattr(task, key), getattr(old, key)
            if now != before:
                hint = "; name the old ones in labels to keep it" if key == "labels" else ""
                return f"{key} is {_plain(now)}, was {_plain(before)}{hint}"
        return ""

    def _said(self, taken: Mapping[str, list[str]], new: Mapping[str, Mapping[str, str]]) -> str:
        """Say what was taken and what is new."""
        epoch = ""
        if self.best:
            scores = [
                f"{task} {name} {value:.3f}" for task, of in self.best["dev"].items() for name, value in of.items()
            ]
            epoch = f" (epoch {self.best['epoch']}{', dev ' if scores else ''}{', '.join(scores)})"
        parts = [
            f"{what[: -1 if len(names) == 1 else None]} {', '.join(names)}" for what, names in taken.items() if names
        ]
        fresh = [f"{what[:-1]} {name} ({why})" for what, reasons in new.items() for name, why in reasons.items()]
        said = f"begins from {self.folder}{epoch}: {' and '.join(parts) or 'its tokenizer alone'}"
        return said + (f"; new: {', '.join(fresh)}" if fresh else "")

    def seen_rows(
        self, config: RunConfig, data: Mapping[str, Mapping[str, str]], held_with: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Say whose dev rows this run may have been trained on: those that it did not hold out in the same way."""
        identity, recorded = known_identity(self.folder) or {}, recorded_tasks(self.folder)
        before, old, notes = identity.get("data", {}), self.run.model.tasks, []
        for task in config.tasks:
            if task.name not in old or task.name not in held_with:
                continue
            record = recorded.get(task.name, {})
            together = held_with[task.name]
            same = (
                self.run.config.train.seed == config.train.seed
                and record.get("dev_rows") != 0
                and list(record.get("held_with", [task.name])) == list(together)
                and all(
                    name in old
                    and before.get(name) == data.get(name)
                    and all(getattr(config.task(name), key) == getattr(old[name], key) for key in _HELD_BY)
                    for name in together
                )
            )
            if not same:
                notes.append(
                    f"{task.name}: {self.folder} may have trained on some of its dev rows, as it did not hold out the"
                    " same ones; name a dev file for scores that can be trusted"
                )
        return notes


def base_config(folder: Path, out: Path | None, resume: bool) -> RunConfig:
    """Return the settings that a run has which names only another to begin from: that one's.

    They are the run's own where it is resumed after the other was removed.
    """
    gone = out is not None and resume and not folder.is_dir() and known_identity(out) is not None
    return read_config(out if out is not None and gone else folder)


def begin_from(
    folder: str | Path | None, config: RunConfig, out: Path, resume: bool
) -> tuple[RunConfig, Origin | None, str | None]:
    """Load the run that another begins from, if one is named.

    A run that is resumed from a checkpoint does not need the folder any more.

    :return: the configuration, whose new encoders start from the weights that the other run's started from; the other
        run, None where it is not needed; and the phrase by which the new run's identity has it.
    :raises ConfigError: for a configuration that names other weights: the one tokenizer comes from the other run.
    """
    if folder is None:
        return config, None, None
    folder = Path(folder)
    place, before = f"{folder.resolve()}, sha256 ", known_identity(out) if resume else None
    if folder.is_dir() or before is None:
        origin = Origin.load(folder)
        phrase, weights = place + origin.digest, origin.run.config.encoder.weights
    else:
        origin, known = None, str(before.get("from"))
        phrase = known if known.startswith(place) else place + "unknown, since there is no such folder"
        weights = read_config(out).encoder.weights
    if config.encoder.weights not in (weights, EncoderConfig().weights):
        raise ConfigError(
            f"encoder.weights must be left out, or be those that {folder} started from, {shown(weights)},"
            f" got {shown(config.encoder.weights)}"
        )
    return replace(config, encoder=replace(config.encoder, weights=weights)), origin, phrase


def keep_thresholds(model: MultitaskModel, origin: Mapping[str, Any] | None) -> None:
    """Predict labels from the thresholds that were chosen for taken decoders, until dev rows choose others.

    :param origin: as in Start.
    """
    for name, threshold in (origin or {}).get("thresholds", {}).items():
        model.tasks[name] = replace(model.tasks[name], threshold=threshold)


def _as_encoder(module: nn.Module) -> BertModel:
    """Return a module of ``MultitaskModel.encoders`` as what it is."""
    assert isinstance(module, BertModel)
    return module


def _take(decoder: nn.Module, old: nn.Module) -> str:
    """Give a decoder the old one's weights; say why where they don't fit, as those of a user's own part may not."""
    tensors = old.state_dict()
    fit_buffers(decoder, tensors)
    own = decoder.state_dict()
    if {name: tensor.shape for name, tensor in own.items()} != {name: old.shape for name, old in tensors.items()}:
        return "its parts have other weights"
    decoder.load_state_dict(tensors)
    return ""


def _digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors, their names, types and shapes."""
    digest = sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _scores_of(best: Path) -> dict[str, Any]:
    """Return the number and the dev scores of a best epoch; {} for one of an earlier version."""
    try:
        found = json.loads((best / "scores.json").read_text(encoding="utf-8"))
        return {"epoch": int(found["epoch"]), "dev": {name: dict(scores) for name, scores in found["dev"].items()}}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _plain(value: object) -> str:
    """Return a setting as a message shows it."""
    if isinstance(value, tuple):
        names = [str(each) for each in value]
        return ", ".join([*names[:5], f"{len(names) - 5} more"] if len(names) > 5 else names)
    return "unset" if value is None else str(value)
