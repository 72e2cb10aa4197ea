"""Measure whole processes for benchmark.py: memory, imports, large files, the first answer.

Run as a program, it is what those processes do, and prints its own peak of memory at the end.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from peers import Training
from tools import Bench, drawn_rounds

from multitask import build_config
from multitask.__main__ import main as multitask
from multitask.data.load import prepare, to_task_data
from multitask.distributed import is_main, process_group, sum_over_ranks
from multitask.model.build import build_model
from multitask.updates.stepper import Stepper

PAIRS, ROWS = 400_000, 1_000_000
ROOT = Path(__file__).parents[2]
RUN = [sys.executable, str(Path(__file__).resolve())]


def train_side(bench: Bench, side: str) -> None:
    """Train on the rounds with one side alone, and print the peak of memory: what a process of ``memory`` runs."""
    ours, tokenizer, theirs, decoders, _ = bench.models(bench.weights)
    rounds = drawn_rounds(bench, ours, tokenizer)
    if side == "B0":
        del ours
        run = Training(theirs, decoders, bf16=False)
        for batches in rounds:
            run.round({name: (dict(batch.tokens), batch.labels) for name, batch in batches.items()})
    else:
        del theirs, decoders
        update = Stepper(ours.train(), bench.config.train, np.random.default_rng(0), getattr(torch, side))
        for batches in rounds:
            update.round(batches, 1.0)
    print(peak_memory())


def memory(bench: Bench) -> None:
    """Measure the peak memory of a process that trains, for each side."""
    for side in ("bfloat16", "float32", "B0"):
        command = [sys.executable, str(Path(__file__).with_name("benchmark.py")), "--data", str(bench.args.data)]
        command += [f"--{name}={value}" for name in ("tasks", "weights") if (value := getattr(bench.args, name))]
        command += ["--threads", str(bench.args.threads), "--rounds", str(bench.args.rounds), "--train-side", side]
        bench.add({"what": "peak memory, training", "side": side, "MB": run(*command)})


def imports(bench: Bench) -> None:
    """Time the import of every class beside that of torch."""

    def side(statement: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", statement], check=True)

    sides = {"minbert": side("from minbert import AdamW, BertModel, BertTokenizer"), "torch": side("import torch")}
    bench.compare("import, every class loaded", sides)


def pairs(bench: Bench) -> None:
    """Time 400,000 pairs: to read and tokenize all, and from the command to the end of the first training step."""
    task = next(task for task in bench.config.tasks if task.is_pair)
    file, tasks, out = (bench.folder / name for name in ("pairs.tsv", "pairs.toml", "pairs"))
    header, *lines = Path(str(task.train)).read_text(encoding="utf-8").splitlines(keepends=True)
    file.write_text(header + "".join(islice(cycle(lines), PAIRS)), encoding="utf-8")
    tasks.write_text(f'[tasks.{task.name}]\ntrain = "{file}"\ndev = "{Path(str(task.dev)).resolve()}"\n', "utf-8")
    began = time.perf_counter()
    taken = run(*RUN, "tokenize", str(tasks), str(bench.weights))
    bench.add({"what": f"read and tokenize {PAIRS} pairs", "s": time.perf_counter() - began, "MB": taken})
    command = [sys.executable, "-m", "multitask", "train", "--tasks", str(tasks), "--weights", str(bench.weights)]
    began = time.perf_counter()
    training = subprocess.Popen([*command, "--out", str(out), "--rounds", "1", "--quiet"], stdout=subprocess.DEVNULL)
    while not (out / "timing.jsonl").exists() or not (out / "timing.jsonl").stat().st_size:
        assert training.poll() in (None, 0), "the training failed"
        time.sleep(0.02)
    bench.add({"what": f"first step on {PAIRS} pairs", "s": time.perf_counter() - began})
    training.kill()
    training.wait()


def predict(bench: Bench) -> None:
    """Time the command to its first answer, and, with a tiny encoder, on a million rows and on a tenth of them."""
    source, answers = bench.folder / "rows.txt", bench.folder / "answers.tsv"
    for name, weights in (("real", str(bench.weights)), ("tiny", str(ROOT / "weights" / "tiny-bert"))):
        command = [sys.executable, "-m", "multitask", "train", "--tasks", str(ROOT / "examples" / "own_task.toml")]
        command += ["--weights", weights, "--out", str(bench.folder / name), "--epochs", "1", "--quiet"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    command = [*RUN, "multitask", "predict", "--input", str(source), "--output", str(answers), "--quiet"]
    source.write_text("I was charged twice this month.\n", encoding="utf-8")
    for _ in range(2):  # the first fills the file cache
        began = time.perf_counter()
        run(*command, str(bench.folder / "real"))
    bench.add({"what": "predict, command to one answer", "s": time.perf_counter() - began})
    lines = ("Where is it?\n", "The parcel is late.\n", "I was charged twice this month, and once the month before.\n")
    for count in (ROWS // 10, ROWS):
        with source.open("w", encoding="utf-8") as file:
            file.writelines(islice(cycle(lines), count))
        began = time.perf_counter()
        taken = run(*command, str(bench.folder / "tiny"))
        bench.add({"what": f"predict {count} rows, tiny", "s": time.perf_counter() - began, "MB": taken})
        with answers.open(encoding="utf-8") as file:
            assert all(line.startswith(f"{number}\t") for number, line in enumerate(file) if number), "out of order"


def ranks(bench: Bench) -> None:
    """Time rounds on one and on two processes of one thread each, and the sum of the gradients alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    model = bench.models(bench.weights)[0]
    task = next(iter(model.tasks))
    entries = sum(p.numel() for module in (model.encoder_of(task), model.decoders[task]) for p in module.parameters())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*torchrun, "--nproc-per-node=2", *RUN[1:], "sum", str(entries)],
        env=environment,
        capture_output=True,
        check=True,
    )
    milliseconds = int(done.stdout.split()[-1])
    bench.add({"what": "sum of gradients, 2 processes", "MB a step and task": entries * 4e-6, "ms": milliseconds})
    command = ["-m", "multitask", "train", "--data", str(bench.args.data), "--weights", str(bench.weights), "--quiet"]
    command += [f"--tasks={bench.args.tasks}"] if bench.args.tasks else []
    command += ["--limit", "640", "--epochs", "1", "--rounds", "10"]
    command += [word for name in model.tasks for word in ("--set", f"tasks.{name}.batch_size=32")]
    for count in (1, 2):
        out = bench.folder / f"ranks-{count}"
        whole = [*torchrun, f"--nproc-per-node={count}", *command, "--out", str(out)]
        subprocess.run(whole, env=environment, check=True, stdout=subprocess.DEVNULL)
        lines = [json.loads(line) for line in (out / "timing.jsonl").read_text(encoding="utf-8").splitlines()]
        seconds = statistics.median(line["seconds"] for line in lines if "round" in line)
        rows = count * 32 * len(model.tasks)
        bench.add({"what": f"round on {count} processes, 1 thread each", "s": seconds, "rows/s": rows / seconds})


def run(*command: str) -> int:
    """Run a command, and give the peak of memory, in MB, that it printed last."""
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def peak_memory() -> int:
    """Give this process's peak of memory in MB.

    Not by getrusage: its peak is inherited from the process that started this one.
    """
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) // 1024


def main() -> None:
    """Do what the first argument names, and print the peak of memory."""
    what, *arguments = sys.argv[1:]
    if what == "tokenize":
        config = build_config(tasks_file=Path(arguments[0]), weights=arguments[1])
        prepared = prepare(config)
        model, tokenizer = build_model(prepared.config)
        to_task_data(prepared.train, model.tasks, tokenizer, model.max_length)
    elif what == "sum":
        print_sum_time(int(arguments[0]))
        return
    else:
        assert multitask(arguments) in (None, 0)
    print(peak_memory())


def print_sum_time(entries: int) -> None:
    """Print the milliseconds that one sum of so many numbers over all processes takes."""
    seconds, gradient = [], torch.ones(entries)
    with process_group():
        for _ in range(7):
            began = time.perf_counter()
            sum_over_ranks([gradient.fill_(1)])
            seconds.append(time.perf_counter() - began)
        if is_main():
            print(round(statistics.median(seconds) * 1e3))


if __name__ == "__main__":
    main()
