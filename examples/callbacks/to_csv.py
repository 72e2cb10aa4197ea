"""Train, and write losses to live.csv as they come (tail -f live.csv); settings may follow: train.epochs=1."""

import csv
import sys

from multitask import RoundRecord, build_config, train

table = csv.writer(open("live.csv", "w", encoding="utf-8", buffering=1, newline=""))  # noqa: SIM115 - until the end
table.writerow(["round", "task", "rows", "loss", "lr", "grad_norm"])


def on_round(record: RoundRecord) -> None:
    """Write a line for each task of a round."""
    table.writerows([record.number, name, *vars(step).values()] for name, step in record.tasks.items())


train(build_config(tasks_file="examples/tasks.toml", sets=sys.argv[1:]), "runs/live", on_round=on_round)
