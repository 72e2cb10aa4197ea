"""What is decided by rows or weights where the user leaves it open; each decision is one sentence that is noted."""

from collections.abc import Mapping

from multitask.data.load import Prepared
from multitask.data.sampling import DEFAULT_BATCH, Sampler
from multitask.distributed import size
from multitask.errors import ConfigError
from multitask.evaluation import FEWEST_TO_CHOOSE, Selection
from multitask.model.model import MultitaskModel
from multitask.settings.checks import listed
from multitask.settings.choices import POOLING_WITHOUT_POOLER
from multitask.settings.config import RunConfig

__all__ = ["pooling_notes", "selection_for", "training_notes"]


def selection_for(select: str, prepared: Prepared) -> Selection:
    """Decide by what the epoch that is kept is chosen, and note it in ``prepared`` where it is not the dev score.

    :raises ConfigError: for patience with no score, and as Selection.parse.
    """
    train, tasks = prepared.config.train, prepared.config.tasks
    dev_rows = {name: len(rows) for name, rows in prepared.dev.items()}
    if train.patience is not None and (select == "last" or not any(dev_rows.values())):
        why = "select is last" if select == "last" else "there are no dev rows"
        raise ConfigError(f"train.patience must be unset where {why}: it waits for a better dev score")
    asked = "mean" if select == "auto" and train.patience is not None else select
    selection = Selection.parse(asked, tasks, dev_rows)
    if asked == "auto" and selection.last and train.epochs > 1:
        fewest = min(dev_rows, key=lambda name: dev_rows[name])
        prepared.notes.append(
            f"the last epoch is kept, as {dev_rows[fewest]} dev rows of {fewest} are fewer than the {FEWEST_TO_CHOOSE}"
            " that one is chosen by (--select)"
        )
    return selection


def pooling_notes(config: RunConfig, model: MultitaskModel) -> list[str]:
    """Say which tasks were to have attention pooling, as they name none, but have an encoder without a pooler."""
    open_ones = [task.name for task in config.tasks if task.pooling is None]
    names = [name for name in open_ones if model.encoder_of(name).pooler is None]
    why = "as the encoder has no pooler for attention to ask with (tasks.NAME.pooling)"
    return [f"{listed(names)}: pooling is {POOLING_WITHOUT_POOLER}, {why}"] if names else []


def training_notes(config: RunConfig, sizes: Mapping[str, int], sampler: Sampler) -> list[str]:
    """Say by task how its rows are drawn, where they are fewer than a batch or are passed over more than once an epoch.

    :param sizes: by task how many rows are drawn from.
    :param sampler: of this package; one of a user's own decides for itself.
    """
    batches: Mapping[str, int] = getattr(sampler, "batch_sizes", {})
    rounds = sampler.rounds_per_epoch
    notes = []
    for task in config.tasks:
        rows, batch = sizes[task.name], batches.get(task.name, 0)
        if batch and batch < (task.batch_size or DEFAULT_BATCH) * size():
            notes.append(f"{task.name}: batches of {batch} of its {rows} rows (tasks.{task.name}.batch_size)")
        if batch and rounds * batch > rows:
            times = rounds * batch / rows
            notes.append(f"{task.name}: {rows} rows are passed over {times:.1f} times in an epoch (train.min_rounds)")
    return notes
