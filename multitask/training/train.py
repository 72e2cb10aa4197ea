"""Training a run into a folder: what stands around the loop, from the rows that are read to the epoch that is kept."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from multitask.data.examples import OnBad
from multitask.data.load import prepare
from multitask.data.memory import rows_by_task
from multitask.distributed import broadcast_from_main, is_main
from multitask.errors import ConfigError
from multitask.run import Run
from multitask.settings.checks import shown
from multitask.settings.config import EncoderConfig, RunConfig, TrainConfig
from multitask.settings.distillation import Distillation
from multitask.settings.task import Task
from multitask.training.arguments import config_of, make_folder, refuse_run_as_weights, with_given
from multitask.training.identity import (
    finished_identity,
    identity_of,
    refuse_changes,
    refuse_differences,
    refuse_to_overwrite,
)
from multitask.training.origin import base_config, begin_from
from multitask.training.run_folder import Signals, locked
from multitask.training.session import OnEpoch, OnRound, Session
from multitask.training.teachers import Teaching

__all__ = ["train"]


def train(
    config: RunConfig | None = None,
    out: str | Path | None = None,
    *,
    tasks: Sequence[Task] | None = None,
    data: Mapping[str, Mapping[str, Any]] | None = None,
    weights: str | Path | EncoderConfig | None = None,
    settings: TrainConfig | None = None,
    from_run: str | Path | None = None,
    distillation: Distillation | None = None,
    epochs: int | None = None,
    seed: int | None = None,
    device: str = "auto",
    select: str = "auto",
    limit: int | None = None,
    bad_rows: OnBad = "missing",
    resume: bool = False,
    save_every: int = 100,
    keep: int = 1,
    keep_optimizer: bool = False,
    progress: bool = True,
    on_round: OnRound | None = None,
    on_epoch: OnEpoch | None = None,
) -> Run:
    """Train all tasks of ``config``, or ``tasks`` on ``weights``, or those of ``from_run``, into the folder ``out``.

    Within ``distributed.process_group()`` all processes train together, each on its share of every batch, which is
    ``batch_size`` rows a process; all have to see the folder, the main one writes it.

    :param config: from build_config, or a RunConfig; else ``tasks``, or ``from_run``.
    :param out: ``runs/`` and the preset's name, unless told; without a preset ``runs/own``.
    :param data: rows in memory by task and split, ``{"topic": {"train": rows, "dev": rows}}``, for splits without a
        file: lists of dicts, pandas DataFrames, datasets.Dataset or any iterable of mappings.
    :param weights: name, hub id or folder of the encoder's weights, or an EncoderConfig.
    :param settings: with ``tasks``, all else; ``epochs`` and ``seed`` are shorthands of its.
    :param from_run: a run folder to begin from: its best epoch's encoders, tokenizer and those decoders whose tasks
        have the same name, labels and form; given alone, its tasks and settings, too, over which ``settings``,
        ``epochs`` and ``data`` are put. The optimizers begin anew.
    :param distillation: runs whose outputs are learned beside the labels, also on rows without any.
    :param device: ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"``, the first there is of CUDA, MPS and CPU.
    :param select: the dev score that says which epoch is kept in ``best/``: ``"mean"``, a task or TASK.METRIC; or
        ``"last"``, the last one; ``"auto"`` is the mean if each task has 100 dev rows, else the last.
    :param limit: take at most so many training and dev rows of each task, drawn by the seed.
    :param bad_rows: ``"missing"`` leaves out rows without text or label and refuses any other that can't be used,
        ``"error"`` refuses both, ``"skip"`` leaves both out; record.json names each row that was left out.
    :param resume: continue from the folder's last checkpoint, to the same bytes as a run that was never stopped, if
        machine, versions, threads, precision and kernels are the same; what is not is said and recorded. Starts anew
        without a checkpoint, and returns a finished run as it is.
    :param save_every: rounds between checkpoints; there is one after each epoch, too.
    :param keep: newest checkpoints to keep while training.
    :param keep_optimizer: leave the last checkpoint, with the optimizers' moments, in ``checkpoints/`` at the end.
    :param progress: show estimate, bars and scores on standard error.
    :param on_round: called with each round's record (``number``, ``epoch``, ``seconds``, and by task ``rows``,
        ``loss``, ``lr`` and ``grad_norm``) as soon as it is trained. If it returns "stop" and there is more to train,
        the state is saved and the run stopped, as by a signal; ``resume`` goes on. Of several processes the main one
        calls it.
    :param on_epoch: called in the same way with each epoch's dev scores, {task: Score}.
    :return: the run of the best epoch.
    :raises ConfigError: for settings that are not allowed.
    :raises DataError: for files and rows that can't be used.
    :raises WeightsError: for weights that are missing or broken.
    :raises RunError: for a folder in use, changed settings, files, rows or tokenizer, a loss that is not finite.
    :raises StoppedError: after SIGTERM, SIGINT or a callback's "stop", when the state has been saved.
    """
    if not isinstance(distillation, Distillation | None):
        raise ConfigError(f"distillation must be a Distillation, got {shown(distillation)}")
    base = None
    if from_run is not None and config is None and tasks is None:
        base = with_given(base_config(Path(from_run), None if out is None else Path(out), resume), data)
    config = config_of(config, tasks, weights, settings, base, epochs=epochs, seed=seed)
    refuse_run_as_weights(config)
    given = rows_by_task(data, config.tasks) if data is not None else {}
    out = Path("runs") / config.preset if out is None else Path(out)
    if is_main():
        make_folder(config, out, select, resume, {"limit": limit, "save_every": save_every, "keep": keep}, from_run)
    with locked(out) if is_main() else nullcontext():
        config, origin, phrase = begin_from(from_run, config, out, resume)
        prepared = prepare(config, limit=limit, bad_rows=bad_rows, given=given)
        identity = identity_of(prepared.config, select, limit, given, phrase)
        teaching = None
        if distillation is not None:
            teaching = Teaching(
                distillation, prepared, identity["data"], out, resume=resume, limit=limit, bad_rows=bad_rows
            )
            identity |= teaching.identity
        refuse_differences(broadcast_from_main(identity), identity)
        # From the main process alone: what the others see there may already be what it has changed.
        finished = broadcast_from_main(finished_identity(out) if resume and is_main() else None)
        if finished is not None:
            refuse_changes(out, finished, identity)
            return Run.load(out, device=device, given=given)
        if resume and is_main():
            refuse_to_overwrite(out, prepared.config, phrase)
        session = Session(
            prepared,
            out,
            identity,
            device=device,
            resume=resume,
            progress=progress,
            origin=origin,
            teaching=teaching,
            on_round=on_round,
            on_epoch=on_epoch,
        )
        with Signals().noted() as signals:
            session.train(signals, save_every=save_every, keep=keep)
        session.finish(keep_optimizer)
    return Run.load(out, device=device, given=given)
