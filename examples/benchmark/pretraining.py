"""Measure a step of `multitask pretrain` beside a step of `multitask train` on the same rows, on this machine.

python examples/benchmark/pretraining.py --data data [--rounds 40] [--threads 2] [--weights NAME]

The rows are batches of 32 sentences of the data's SST training file, of like length, as pretraining draws them. The two
sides run in turn in one process, and the ratio is that of the medians; "parts" says what a step of pretraining does
beside the encoder's passes.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from multitask import PretrainConfig, Task, TrainConfig, build_config
from multitask.data.batches import TaskData
from multitask.data.examples import infer_labels, read_examples
from multitask.model.build import build_model
from multitask.precision import choose_precision
from multitask.pretraining.masks import Masker
from multitask.pretraining.rows import build_rows
from multitask.pretraining.start import load_model, load_tokenizer, start_head
from multitask.pretraining.steps import Trainer
from multitask.settings.config import EncoderConfig, RunConfig
from multitask.updates.stepper import Stepper


def sides(task: Task, weights: str, count: int) -> dict[str, Callable[[int], object]]:
    """Build both trainings; each side is a function of the number of a batch."""
    torch.manual_seed(0)
    settings = PretrainConfig(weights=weights, epochs=1)
    dtype, sentence = choose_precision("auto", torch.device("cpu"))
    print(f"precision {sentence}")
    tokenizer = load_tokenizer(weights)
    examples = read_examples(task.train, task).examples
    masker = Masker(tokenizer)
    rows = build_rows([example.texts[0] for example in examples], tokenizer, masker, settings.max_length)
    if rows.cut or rows.without:
        raise SystemExit("error: the texts must be short and known, so that rows are the same on both sides")
    model, own_head = load_model(weights, settings.dropout)
    if not own_head:
        start_head(model, rows.tokens.input_ids)
    trainer = Trainer(model, rows, masker, settings, dtype)
    config = RunConfig(tasks=[task], encoder=EncoderConfig(weights=weights), train=TrainConfig())
    tuned, tokenizer = build_model(config)
    data = TaskData.build(task, examples, tokenizer, tuned.max_length, ahead=False)
    stepper = Stepper(tuned.train(), config.train, np.random.default_rng(0), dtype)
    chosen = [trainer.order.rows(0, step) for step in range(count)]
    return {
        "train": lambda number: stepper.round({task.name: data.batch(chosen[number])}, 1.0),
        "pretrain": lambda number: trainer.step(0, number),
    }


def main() -> None:
    """Time both sides in turn and print the ratio of their medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), metavar="DIR")
    parser.add_argument("--weights", default="all-minilm-l6-v2", metavar="NAME")
    parser.add_argument("--rounds", type=int, default=40, metavar="N")
    parser.add_argument("--threads", type=int, default=2, metavar="N")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    task = next(task for task in build_config(data=args.data, weights=args.weights).tasks if task.name == "sst")
    both = sides(infer_labels(task), args.weights, args.rounds + 3)
    times: dict[str, list[float]] = {name: [] for name in both}
    for number in range(args.rounds + 3):
        for name in both if number % 2 else reversed(both):
            began = time.perf_counter()
            both[name](number)
            times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(each[3:]) for name, each in times.items()}
    for name, seconds in medians.items():
        print(f"{name:<10} {seconds * 1e3:7.1f} ms a step of 32 rows")
    print(f"pretrain / train {medians['pretrain'] / medians['train']:.2f}")
    by_pair = sorted(p / t for p, t in zip(times["pretrain"][3:], times["train"][3:], strict=True))
    print(
        f"of the pairs     {statistics.median(by_pair):.2f} ({by_pair[len(by_pair) // 4]:.2f} to "
        f"{by_pair[-len(by_pair) // 4]:.2f} the middle half)"
    )


if __name__ == "__main__":
    main()
