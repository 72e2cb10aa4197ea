"""Checkpoints: everything a training needs to go on, as safetensors and JSON."""

from pathlib import Path

import torch

from minbert.checkpoint import write_json, write_tensors
from multitask.model import MultitaskModel
from multitask.training import TrainState
from multitask.updates import Update

__all__ = ["save_checkpoint"]


def save_checkpoint(folder: Path, model: MultitaskModel, update: Update, state: TrainState) -> None:
    """Weights, every optimizer's moments and step counts, generators and position, in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / "model.safetensors", model.state_dict())
    moments = {
        f"{name}.{index}.{key}": value
        for name, optimizer in update.optimizers.items()
        for index, entry in optimizer.state_dict()["state"].items()
        for key, value in entry.items()
    }
    write_tensors(folder / "optimizers.safetensors", moments)
    write_tensors(folder / "generators.safetensors", {"torch": torch.get_rng_state()})
    position = {"epoch": state.epoch, "round": state.round, "order": update.order_rng.bit_generator.state}
    write_json(folder / "state.json", position)
