"""A model of several tasks: encoders, mostly one that all share, and one decoder per task."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from minbert.errors import WeightsError, listed
from minbert.files.checkpoint import fault_of
from minbert.files.storage import read_tensors, write_json, write_tensors
from minbert.model import BertModel
from minbert.token_batch import TokenBatch
from minbert.tokenizer import BertTokenizer
from multitask.errors import ConfigError, RunError
from multitask.model.decoders import TaskDecoder
from multitask.plugins import own_parts, require_parts
from multitask.settings.choices import DEFAULT_POOLING, POOLING_WITHOUT_POOLER, POOLINGS
from multitask.settings.task import Task

__all__ = ["FORMAT_VERSION", "MultitaskModel", "best_folder", "fit_buffers", "needs_pooler"]

FORMAT_VERSION = 2


class MultitaskModel(nn.Module):
    """Encoders by name and, for each task, its decoder.

    :param encoders: every encoder that a task names.
    :param tasks: with the labels known, since they set the width of a decoder's head.
        A pooling that they leave open is chosen here: ``tasks`` of the model says which.
    :raises ConfigError: for a task whose encoder is not there, or lacks the pooler that its pooling reads.
    """

    def __init__(self, encoders: Mapping[str, BertModel], tasks: Sequence[Task]) -> None:
        super().__init__()
        wrong = sorted({task.encoder for task in tasks} - set(encoders))
        if wrong:
            raise ConfigError(f"a task's encoder must be one of {listed(encoders)}, got {wrong[0]!r}")
        tasks = [_with_pooling(task, encoders[task.encoder]) for task in tasks]
        self.tasks = {task.name: task for task in tasks}
        for task in tasks:
            if needs_pooler(task.pooling) and encoders[task.encoder].pooler is None:
                others = listed(name for name in POOLINGS if not needs_pooler(name))
                raise ConfigError(
                    f"tasks.{task.name}.pooling must be one of {others}, since the encoder {task.encoder!r} has no"
                    f" pooler, got {task.pooling!r}"
                )
        for name in (*encoders, *self.tasks):
            if hasattr(nn.ModuleDict(), name):
                raise ConfigError(
                    f"the name of a task or an encoder must not be an attribute of torch's ModuleDict, got {name!r}"
                )
        self.encoders = nn.ModuleDict(encoders)
        self.decoders = nn.ModuleDict({task.name: TaskDecoder(task, encoders[task.encoder].config) for task in tasks})

    def forward(
        self, task: str, tokens: TokenBatch | Mapping[str, Tensor], windows: Sequence[int] | None = None
    ) -> Tensor:
        """Return the outputs (batch, num_outputs) of one task; TaskDecoder.forward has the order of separate input.

        :param windows: how many of the texts each row has, which follow each other: a row's outputs are their mean, in
            float32 at least. None for one each.
        """
        outputs: Tensor = self.decoders[task](self.encoder_of(task)(**tokens))
        if windows is None:
            return outputs
        if outputs.dtype in (torch.bfloat16, torch.float16):
            outputs = outputs.float()
        return torch.stack([part.mean(0) for part in outputs.split(list(windows))])

    def encoder_of(self, task: str) -> BertModel:
        """Return the encoder a task uses."""
        encoder = self.encoders[self.tasks[task].encoder]
        assert isinstance(encoder, BertModel)
        return encoder

    @property
    def max_length(self) -> int:
        """Tokens a row may have: the least that any of the encoders takes."""
        configs = [self.encoder_of(task).config for task in self.tasks]
        return min(config.max_tokens for config in configs)

    def save_pretrained(self, folder: Path, tokenizer: BertTokenizer) -> None:
        """Write the encoder as a HuggingFace folder with its tokenizer, decoders.safetensors and tasks.json.

        Several encoders have a folder each below it, called by their names.
        """
        folder.mkdir(parents=True, exist_ok=True)
        places = _encoder_places(folder, list(self.encoders))
        for name, place in places.items():
            encoder = self.encoders[name]
            assert isinstance(encoder, BertModel)
            encoder.save_pretrained(place)
            tokenizer.save_pretrained(place)
        write_tensors(folder / "decoders.safetensors", self.decoders.state_dict())
        description: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "encoders": {
                name: {"folder": str(place.relative_to(folder)), "pooler": self.encoders[name].pooler is not None}
                for name, place in places.items()
            },
            "tasks": {name: task.to_dict() for name, task in self.tasks.items()},
            "plugins": own_parts(*self.tasks.values()),
        }
        write_json(folder / "tasks.json", description)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Load the model of a run folder (its best epoch) or of a folder that save_pretrained wrote, in eval mode.

        :raises RunError: for a tasks.json that is missing, broken or of another format, or a part of one's own that is
            not registered.
        :raises WeightsError: for weights that are missing, broken or fit neither encoder nor tasks.
        """
        folder = best_folder(Path(folder))
        description = read_description(folder)
        require_parts(folder, description.get("plugins", {}))
        tasks = [Task.from_dict(name, values) for name, values in description["tasks"].items()]
        encoders = {
            name: BertModel.from_pretrained(
                _inside(folder, entry["folder"]), add_pooling_layer=entry["pooler"], warn=False
            )
            for name, entry in description["encoders"].items()
        }
        model = cls(encoders, tasks)
        tensors = read_tensors(folder / "decoders.safetensors")
        fit_buffers(model.decoders, tensors)
        own = model.decoders.state_dict(keep_vars=True)
        wrong = sorted(set(own) ^ set(tensors))
        wrong += [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
        if wrong:
            raise WeightsError(f"{folder / 'decoders.safetensors'}: must fit tasks.json, differs at {listed(wrong)}")
        for name, tensor in tensors.items():
            # Of a pooling or head of one's own, a buffer may hold other than finite numbers, such as a count.
            fault = fault_of(tensor, own[name].dtype) if isinstance(own[name], nn.Parameter) else ""
            if fault:
                raise WeightsError(f"{folder / 'decoders.safetensors'}: {name} {fault}")
        model.decoders.load_state_dict(tensors)
        return model.eval()


def needs_pooler(pooling: str | None) -> bool:
    """Return whether a pooling reads the encoder's pooler; None: whether the one that is chosen does if it can."""
    return bool(getattr(POOLINGS[pooling or DEFAULT_POOLING], "needs_pooler", False))


def _with_pooling(task: Task, encoder: BertModel) -> Task:
    """Choose the pooling of a task that names none."""
    if task.pooling is not None:
        return task
    return replace(task, pooling=POOLING_WITHOUT_POOLER if encoder.pooler is None else DEFAULT_POOLING)


def best_folder(folder: Path) -> Path:
    """Return ``folder/best`` of a run, or ``folder`` itself when it holds a model; RunError otherwise."""
    for candidate in (folder / "best", folder):
        if (candidate / "tasks.json").is_file():
            return candidate
    raise RunError(f"{folder}: must be a run folder, with best/tasks.json or tasks.json in it")


def fit_buffers(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make room for buffers that were None, or of another shape, when the module was built, and have grown since.

    :param tensors: what is about to be loaded, by the names of the module's state.
    """
    for prefix, part in module.named_modules():
        for name, buffer in part._buffers.items():
            found = tensors.get(f"{prefix}.{name}" if prefix else name)
            if found is not None and (buffer is None or found.shape != buffer.shape):
                part._buffers[name] = found.clone() if buffer is None else found.to(buffer)


def read_description(folder: Path) -> dict[str, Any]:
    """Return tasks.json, its format checked."""
    path = folder / "tasks.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format_version"]
        encoders, tasks = description["encoders"], description["tasks"]
        fits = all(isinstance(table, dict) and table for table in (encoders, tasks)) and all(
            isinstance(entry["folder"], str) and isinstance(entry["pooler"], bool) for entry in encoders.values()
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: can't be read ({error!r})") from None
    if version != FORMAT_VERSION:
        raise RunError(f"{path}: format_version must be {FORMAT_VERSION}, got {version!r}")
    if not fits:
        raise RunError(f"{path}: encoders and tasks must be as this version writes them, got others")
    result: dict[str, Any] = description
    return result


def _inside(folder: Path, relative: str) -> Path:
    place = (folder / relative).resolve()
    if not place.is_relative_to(folder.resolve()):
        raise RunError(f"{folder / 'tasks.json'}: an encoder's folder must be inside the run, got {relative!r}")
    return place


def _encoder_places(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    if len(names) == 1:
        return {names[0]: folder}
    return {name: folder / name for name in names}
