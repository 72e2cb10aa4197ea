"""A sweep: every setting trained with every seed, each run in a folder of its own, and all compared at the end."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from multitask.data.examples import OnBad
from multitask.data.load import prepare
from multitask.distributed import is_main
from multitask.errors import DataError, StoppedError
from multitask.model.build import build_model
from multitask.settings.sweep import Sweep
from multitask.studies.compare_runs import Comparison, Member, compare_sides, read_member, refuse_other_rows
from multitask.training.decisions import selection_for
from multitask.training.identity import (
    finished_identity,
    identity_of,
    known_identity,
    refuse_changes,
    refuse_to_overwrite,
)
from multitask.training.loop import build_sampler
from multitask.training.train import train
from multitask.updates.stepper import Stepper

__all__ = ["run_sweep"]


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    device: str = "auto",
    select: str = "auto",
    limit: int | None = None,
    bad_rows: OnBad = "missing",
    save_every: int = 100,
    progress: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> Comparison:
    """Train what is not trained yet, each run as ``train`` with ``resume`` does it, and compare settings on dev.

    :param out: the folder of the run folders NAME-SEED.
    :param say: is told which run comes next.
    :return: each setting's scores by seed, and its differences to the first setting.
    :raises ConfigError: before the first training, as train does.
    :raises DataError: before the first training, for rows that can't be used, and where there are no dev rows.
    :raises RunError: before the first training for settings whose dev rows differ, and for a folder whose run was
        trained otherwise, or that holds something else.
    :raises StoppedError: when a signal came and the state has been saved.
    """
    _check(sweep, out, select, limit, bad_rows)
    if is_main():
        _check_folders(sweep, out, select, limit, bad_rows)
    runs = list(sweep.runs())
    for number, (name, config) in enumerate(runs, 1):
        done = finished_identity(out / name) is not None
        say(f"{out / name} ({number} of {len(runs)}){': trained before' if done else ''}")
        try:
            train(
                config,
                out / name,
                device=device,
                select=select,
                limit=limit,
                bad_rows=bad_rows,
                resume=True,
                save_every=save_every,
                progress=progress,
            )
        except StoppedError as error:
            raise StoppedError(error.signum, how=f"the same sweep goes on with {out / name}") from None
    sides = [
        [read_member(out / f"{name}-{seed}", "dev", bad_rows=bad_rows) for seed in sweep.seeds]
        for name in sweep.settings
    ]
    return compare_sides(list(sweep.settings), sides, "dev", device=device)


def _check(sweep: Sweep, out: Path, select: str, limit: int | None, bad_rows: OnBad) -> None:
    """Read rows and build models for the first seed: what can't be trained or compared is refused before hours."""
    members = []
    for name, (_, config) in zip(sweep.settings, sweep.runs(), strict=False):  # those of the first seed come first
        prepared = prepare(config, limit=limit, bad_rows=bad_rows)
        selection_for(select, prepared)
        build_sampler(prepared.config, {task: len(dataset) for task, dataset in prepared.train.items()})
        rows = {task: dataset for task, dataset in prepared.dev.items() if len(dataset)}
        if not rows:
            raise DataError(
                f"{sweep.path}: a task must have dev rows for settings to be compared (tasks.NAME.dev, or"
                " train.hold_out), got none"
            )
        if any(finished_identity(out / f"{name}-{seed}") is None for seed in sweep.seeds):
            Stepper(build_model(prepared.config)[0], config.train, np.random.default_rng())
        members.append([Member(name, prepared.config, rows)])
    refuse_other_rows(members, "dev", advice="; a dev file (tasks.NAME.dev) is the same for all settings")


def _check_folders(sweep: Sweep, out: Path, select: str, limit: int | None, bad_rows: OnBad) -> None:
    """Hold each run against what its folder has already: what can't be gone on with is refused before hours."""
    for name, config in sweep.runs():
        if not (folder := out / name).is_dir():
            continue
        before, config = known_identity(folder), prepare(config, limit=limit, bad_rows=bad_rows).config
        if before is None:
            refuse_to_overwrite(folder, config)
        else:
            advice = "; another --out trains all runs anew"
            refuse_changes(folder, before, identity_of(config, select, limit), advice)
