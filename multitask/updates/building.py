"""What is trained by which optimizer: those of a run, built once, and those that a step takes."""

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import nn

from minbert.optim import parameter_groups
from multitask.errors import ConfigError
from multitask.model.model import MultitaskModel
from multitask.settings.checks import listed
from multitask.settings.choices import OPTIMIZERS
from multitask.settings.tables import TrainConfig
from multitask.updates.gradients import trainable

__all__ = ["build_optimizers", "optimizers_of"]

Optimizers = dict[str, torch.optim.Optimizer]


def build_optimizers(model: MultitaskModel, settings: TrainConfig, own_steps: bool) -> Optimizers:
    """Build the optimizers of all tasks.

    :param own_steps: whether every task has a step of its own; else there is one optimizer, "all".
    :return: by task, over its encoder and its decoder and no other decoder. With ``moments = "shared"`` those are over
        the decoders alone, where they have weights, and each encoder has an optimizer "encoder NAME": no task can be
        called so.
    :raises ConfigError: for tasks that can't be trained together, or that have nothing to train.
    """
    if not own_steps:
        return {"all": _optimizer(_groups_of_all(model, settings), settings, "the run")}
    shared = settings.moments == "shared"
    optimizers: Optimizers = {}
    if shared:
        for name, encoder in model.encoders.items():
            # Of rate and decay 1, for each step to multiply, as an optimizer of a user's own may change them.
            groups = parameter_groups(encoder, 1.0, 1.0)
            if groups:
                optimizers[_of_encoder(name)] = optimizer = _optimizer(groups, settings, f"encoder {name}")
                for group in optimizer.param_groups:
                    group["initial_decay"] = group.get("weight_decay", 0.0)
    for name, task in model.tasks.items():
        groups = parameter_groups(model.encoder_of(name), task.lr, task.weight_decay)
        own = _decoder_groups(model, name)
        if own or not (shared and groups):
            optimizers[name] = _optimizer(own if shared else groups + own, settings, f"task {name}")
    return optimizers


def optimizers_of(
    optimizers: Optimizers, model: MultitaskModel, tasks: Collection[str], own_steps: bool, factor: float
) -> Iterator[torch.optim.Optimizer]:
    """Give the optimizers that take a step, an encoder's one with the rate and decay of the task whose step it is.

    Their groups have the rates that they were built with as ``initial_lr``.

    :param tasks: those of the step: one if it has steps of its own.
    :param factor: of every learning rate.
    """
    if not own_steps:
        yield optimizers["all"]
        return
    (name,) = tasks
    task = model.tasks[name]
    if _of_encoder(task.encoder) in optimizers:
        shared = optimizers[_of_encoder(task.encoder)]
        for group in shared.param_groups:
            group["lr"] = group["initial_lr"] * task.lr * factor
            if "weight_decay" in group:
                group["weight_decay"] = group["initial_decay"] * task.weight_decay
        yield shared
    if name in optimizers:
        yield optimizers[name]


def _of_encoder(name: str) -> str:
    return f"encoder {name}"


def _groups_of_all(model: MultitaskModel, settings: TrainConfig) -> list[dict[str, Any]]:
    """Group what one step for all tasks trains: the tasks of an encoder must agree in its learning rate and decay."""
    rates = {name: (task.lr, task.weight_decay) for name, task in model.tasks.items()}
    groups = []
    for encoder_name, encoder in model.encoders.items():
        users = [name for name, task in model.tasks.items() if task.encoder == encoder_name]
        if len({rates[name] for name in users}) > 1:
            shown = listed(f"{name} {rates[name][0]:g} / {rates[name][1]:g}" for name in users)
            raise ConfigError(
                f"lr / weight_decay must be equal for all tasks of one encoder, since train.update ="
                f" {settings.update!r} makes one step for all, got {shown}; decoder_lr may differ"
            )
        if users:
            groups += parameter_groups(encoder, *rates[users[0]])
    owners: dict[nn.Parameter, str] = {}
    for name in model.tasks:
        for parameter in trainable(model.decoders[name]):
            if owners.setdefault(parameter, name) != name:
                raise ConfigError(
                    f"tasks {owners[parameter]} and {name} must have no parameter in common, since train.update ="
                    f" {settings.update!r} makes one step for all; 'separate' may"
                )
        if not trainable(model.encoder_of(name)) and not trainable(model.decoders[name]):
            _optimizer([], settings, f"task {name}")  # which says why
        groups += _decoder_groups(model, name)
    return groups


def _decoder_groups(model: MultitaskModel, name: str) -> list[dict[str, Any]]:
    """Group a decoder's parameters, which may have a learning rate of their own."""
    task = model.tasks[name]
    rate = task.lr if task.decoder_lr is None else task.decoder_lr
    return parameter_groups(model.decoders[name], rate, task.weight_decay)


def _optimizer(groups: list[dict[str, Any]], settings: TrainConfig, whose: str) -> torch.optim.Optimizer:
    """Build one optimizer; ConfigError without any group."""
    if not groups:
        raise ConfigError(
            f"{whose} has nothing to train: encoder.freeze is true, and a cosine head has no weights of its own"
        )
    optimizer = OPTIMIZERS[settings.optimizer](groups, settings)
    if not isinstance(optimizer, torch.optim.Optimizer):
        found = type(optimizer).__name__
        raise ConfigError(f"train.optimizer {settings.optimizer!r} must give a torch optimizer, got {found}")
    if not all("lr" in group for group in optimizer.param_groups):
        raise ConfigError(f"train.optimizer {settings.optimizer!r} must have lr in all groups, lacks it")
    return optimizer
