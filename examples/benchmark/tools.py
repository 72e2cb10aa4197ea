"""Hold what the parts of benchmark.py share: the data, the weights, the clock and the lines that it prints."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import Decoder
from torch import nn

from minbert import BertConfig, BertModel, BertTokenizer
from minbert.files.checkpoint import has_pooler
from minbert.files.registry import resolve
from multitask import MultitaskModel, build_config
from multitask.data.batches import Batch, TaskData
from multitask.data.load import prepare
from multitask.model.build import build_model

SIDES = dict[str, Callable[[], object]]


class Bench:
    """Data, weights and what was measured so far."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.args, self.folder, self.lines = args, folder, list[dict[str, Any]]()
        self.config = build_config(tasks_file=args.tasks, data=args.data, weights=args.weights)
        decoder: dict[str, Any] = {
            "batch_size": 32,
            "pooling": "attention",
            "input": "joint",
            "head": "linear",
            "dropout": 0.1,
        }
        self.config = replace(self.config, tasks=tuple(replace(task, **decoder) for task in self.config.tasks))
        self.weights = resolve(self.config.encoder.weights)
        kind = BertConfig.from_folder(self.weights).model_type
        if kind != "bert" or not has_pooler(self.weights):
            kind += "" if has_pooler(self.weights) else " without pooler"
            raise SystemExit(f"error: --weights must be a bert with a pooler, as its peers are, got a {kind}")
        self.prepared = prepare(self.config, limit=3000)

    def compare(self, what: str, sides: SIDES, *, real_flops: float = 0.0, rows: int = 0) -> dict[str, float]:
        """Time the sides in turn; the first is ours, the others are divided by it.

        :param real_flops: operations of one call without those on padding, for TFLOP/s and the share of the ceiling.
        :param rows: rows of one call, for rows/s.
        :return: seconds of each side, the median.
        """
        times: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(-1, self.args.rounds):
            for name, run in sides.items():
                began = time.perf_counter()
                run()
                if number >= 0:
                    times[name].append(time.perf_counter() - began)
        medians = {name: statistics.median(values) for name, values in times.items()}
        ours = next(iter(medians))
        line: dict[str, Any] = {"what": what, "side": ours, "seconds": medians[ours]}
        line["ratios"] = {name: medians[name] / medians[ours] for name in medians if name != ours}
        line["spread"] = max(times[ours]) / min(times[ours])
        if rows:
            line["rows/s"] = rows / medians[ours]
        if real_flops:
            line["tflops"] = real_flops / medians[ours] / 1e12
            line["of the ceiling"] = line["tflops"] / self.ceiling[ours]
        self.add(line)
        return medians

    @cached_property
    def ceiling(self) -> dict[str, float]:
        """Measure TFLOP/s of a large matrix product by type: what this machine can do at most."""
        found = {}
        for dtype in (torch.float32, torch.bfloat16):
            a, b = (torch.randn(4096, 4096).to(dtype) for _ in range(2))
            seconds = []
            for _ in range(6):
                began = time.perf_counter()
                a @ b
                seconds.append(time.perf_counter() - began)
            found[str(dtype)[6:]] = 2 * 4096**3 / min(seconds) / 1e12
        return found

    def add(self, line: dict[str, Any]) -> None:
        """Keep a line of results, and print it unless all are printed as JSON at the end."""
        self.lines.append(line)
        if not self.args.json:
            print(shown(line), flush=True)

    def models(self, folder: Path) -> tuple[MultitaskModel, BertTokenizer, nn.Module, dict[str, Decoder], Any]:
        """Load our model and that of `transformers` with equal weights, decoders included."""
        import transformers

        torch.manual_seed(0)
        config = replace(self.prepared.config, encoder=replace(self.config.encoder, weights=str(folder)))
        ours, tokenizer = build_model(config)
        theirs = transformers.BertModel.from_pretrained(folder)
        sizes = (theirs.config.hidden_size, theirs.config.num_attention_heads)
        decoders = {
            name: Decoder(*sizes, task.num_outputs).take(ours.decoders[name]) for name, task in ours.tasks.items()
        }
        return ours, tokenizer, theirs, decoders, transformers.AutoTokenizer.from_pretrained(folder)

    def base(self) -> Path:
        """Write BERT-base with random weights and the small model's tokenizer, once."""
        folder = self.folder / "base"
        if not folder.exists():
            torch.manual_seed(0)
            BertModel(BertConfig()).save_pretrained(folder)
            BertTokenizer.from_pretrained(self.weights).save_pretrained(folder)
        return folder


def shown(line: Mapping[str, Any]) -> str:
    """Write a line of results for people."""
    rest = {key: value for key, value in line.items() if key not in ("what", "side", "seconds", "ratios", "spread")}
    parts = [f"{line['what']:<34}", f"{line.get('side', ''):<10}"]
    if "seconds" in line:
        parts.append(f"{line['seconds'] * 1e3:9.1f} ms")
    parts += [f"{name} {ratio:.2f}x" for name, ratio in line.get("ratios", {}).items()]
    parts += [f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in rest.items()]
    return "  ".join(parts)


def product_parameters(encoder: BertModel) -> int:
    """Count the parameters that every token is multiplied with."""
    return sum(module.weight.numel() for module in encoder.layers.modules() if isinstance(module, nn.Linear))


def drawn_rounds(bench: Bench, model: MultitaskModel, tokenizer: BertTokenizer) -> list[dict[str, Batch]]:
    """Draw as many rounds as are timed, each of 32 rows per task."""
    data = {
        name: TaskData.build(model.tasks[name], rows.examples, tokenizer, model.max_length)
        for name, rows in bench.prepared.train.items()
    }
    rng = np.random.default_rng(0)
    return [
        {name: rows.batch(rng.choice(len(rows), 32, replace=False)) for name, rows in data.items()}
        for _ in range(bench.args.rounds)
    ]


def machine() -> str:
    """Name the CPU, where the system tells it, its number of cores, and its units for bfloat16."""
    names = {"processor": platform.processor() or platform.machine()}
    if Path("/proc/cpuinfo").exists():
        lines = (line.partition(":") for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines())
        names = {name.strip(): value.strip() for name, _, value in lines}
    units = [name for name in ("avx512_bf16", "amx_bf16") if name in names.get("flags", "").split()]
    return (
        f"{names.get('model name', names.get('processor'))}, {os.cpu_count()} cores, {' '.join(units) or 'no bfloat16'}"
    )
