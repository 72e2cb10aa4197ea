"""Measure this library beside `transformers` (B0, B1) and ONNX Runtime (B2), on this machine, in one process.

python examples/benchmark/benchmark.py --data data [--only training list batch ...] [--threads 2] [--rounds 5] [--json]

Needs the extras "test" and "benchmark". Every comparison runs its sides in turn (A B A B ...) after warm-up passes over
the same batches, and is quoted as the ratio of medians; outputs are compared first. Sides: B0 is `transformers` as it
comes, float32, padded batches of 32 in the data's order, torch.optim.AdamW as it comes; B1 the same under bfloat16
autocast with fused=True; B2 (lists) ONNX Runtime on the exported float32 graph and on its dynamic int8. "grouped" is
the peer with its rows sorted by length, as this library does with lists. No figure here is a test.
"""

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import processes
import torch
from lora import lora
from peers import Onnx, Training, export_onnx, transformers_list
from tools import SIDES, Bench, drawn_rounds, machine, product_parameters
from torch import nn

from minbert import AdamW, BertModel, encode
from multitask.data.batches import Batch
from multitask.updates.stepper import Stepper


def ceiling(bench: Bench) -> None:
    """Say how fast this machine multiplies large matrices."""
    for dtype, tflops in bench.ceiling.items():
        bench.add({"what": f"ceiling, {dtype} product of 4096", "tflops": tflops})


def next_round(train: Callable[[Any], object], places: Iterator[Any]) -> None:
    """Train on the round that comes next."""
    train(next(places))


def training_sides(bench: Bench, folder: Path, rounds: Sequence[Mapping[str, Batch]]) -> tuple[SIDES, float]:
    """Warm up the sides of a training benchmark; each call of a side trains on the next of the rounds.

    :return: the sides, and the operations of a round's matrix products without those on padding.
    """
    sides: SIDES = {}
    given = [{name: (dict(b.tokens), b.labels) for name, b in batches.items()} for batches in rounds]
    for name, dtype in (("bfloat16", torch.bfloat16), ("float32", torch.float32)):
        model = bench.models(folder)[0].train()
        update = Stepper(model, bench.config.train, np.random.default_rng(0), dtype)
        for batches in rounds:
            update.round(batches, 1.0)
        sides[name] = partial(next_round, partial(update.round, factor=1.0), cycle(rounds))
        parameters = product_parameters(model.encoder_of(next(iter(model.tasks))))
    for name, bf16 in (("B0", False), ("B1", True)):
        _, _, theirs, decoders, _ = bench.models(folder)
        peer = Training(theirs, decoders, bf16=bf16)
        for batches_given in given:
            peer.round(batches_given)
        sides[name] = partial(next_round, peer.round, cycle(given))
    tokens = [sum(int(b.tokens.attention_mask.sum()) for b in batches.values()) for batches in rounds]
    return sides, 6.0 * parameters * statistics.mean(tokens)


def training(bench: Bench, folder: Path | None = None, what: str = "training round, 3 x 32 rows") -> None:
    """Compare the outputs of both sides, then time rounds of training."""
    folder = folder or bench.weights
    ours, tokenizer, theirs, decoders, _ = bench.models(folder)
    rounds = drawn_rounds(bench, ours, tokenizer)
    peer = Training(theirs, decoders, bf16=False)
    for module in (ours, theirs, *decoders.values()):
        module.eval()
    with torch.no_grad():
        for name, batch in rounds[0].items():
            difference = (ours(name, batch.tokens) - peer.outputs(name, dict(batch.tokens))).abs().max().item()
            assert difference < 1e-4, f"{name}: outputs differ by {difference}"
    sides, flops = training_sides(bench, folder, rounds)
    bench.compare(what, sides, real_flops=flops)


def texts_of(bench: Bench) -> list[list[tuple[str, ...]]]:
    """Give the texts of the SST dev rows, and of half of the Quora dev rows."""
    dev = bench.prepared.dev
    return [[row.texts for row in dev["sst"].examples], [row.texts for row in dev["para"].examples[:1500]]]


def lists(bench: Bench, folder: Path | None = None, what: str = "list, SST and Quora dev") -> None:
    """Compare the pooler's outputs for lists of texts, then time them, tokenization included."""
    folder = folder or bench.weights
    _, tokenizer, theirs, _, their_tokenizer = bench.models(folder)
    model, theirs = BertModel.from_pretrained(folder), theirs.eval()
    kinds = texts_of(bench) if folder == bench.weights else [rows[:160] for rows in texts_of(bench)]

    def ours(bf16: bool) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found = [encode(model, tokenizer, *map(list, zip(*rows, strict=True)), pooling="pooler") for rows in kinds]
        return torch.cat(found)

    def peer(**how: bool) -> torch.Tensor:
        return torch.cat([transformers_list(theirs, their_tokenizer, rows, **how) for rows in kinds])

    def onnx(run: Onnx, grouped: bool) -> None:
        for rows in kinds:
            run(their_tokenizer, rows, grouped=grouped)

    expected = peer(bf16=False, grouped=False)
    assert (ours(False) - expected).abs().max().item() < 1e-4
    sides: SIDES = {"bfloat16": lambda: ours(True), "float32": lambda: ours(False)}
    sides["B0"] = lambda: peer(bf16=False, grouped=False)
    sides["B0 grouped"] = lambda: peer(bf16=False, grouped=True)
    sides["B0 bf16"] = lambda: peer(bf16=True, grouped=False)
    columns = [tuple(map(list, zip(*rows, strict=True))) for rows in kinds]
    tokens = sum(len(tokenizer.tokenize_all(*column).input_ids) for column in columns)
    flops = 2.0 * product_parameters(model) * tokens
    bench.compare(what, sides, real_flops=flops)
    if folder == bench.weights and find_spec("onnxruntime") and find_spec("onnx"):
        sides = {"bfloat16": lambda: ours(True)}
        for name, file in zip(("B2", "B2 int8"), export_onnx(theirs, their_tokenizer, bench.folder), strict=True):
            run = Onnx(file, bench.args.threads)
            found = torch.cat([run(their_tokenizer, rows, grouped=False) for rows in kinds])
            assert "int8" in name or (found - expected).abs().max().item() < 1e-3
            for suffix, grouped in (("", False), (" grouped", True)):
                sides[name + suffix] = partial(onnx, run, grouped)
        bench.compare(f"{what}, ONNX Runtime", sides, real_flops=flops)


def batches(bench: Bench) -> None:
    """Time model(**batch) on one padded batch of 32 after another, tokenized beforehand."""
    _, tokenizer, theirs, _, _ = bench.models(bench.weights)
    model, theirs = BertModel.from_pretrained(bench.weights), theirs.eval()
    rows = texts_of(bench)[1][:320]
    parts = [list(zip(*rows[start : start + 32], strict=True)) for start in range(0, len(rows), 32)]
    compare_batches(
        bench, "padded batches of 32 Quora pairs", model, theirs, [tokenizer(*part, truncation=True) for part in parts]
    )
    for length in (min(512, model.config.max_tokens), 12):
        mask = torch.arange(length) < torch.tensor([length] + [12] * 31)[:, None]
        ids = torch.randint(model.config.vocab_size, mask.shape, generator=torch.Generator().manual_seed(0))
        what = f"1 row of {length} tokens, 31 of 12"
        compare_batches(bench, what, model, theirs, [{"input_ids": ids, "attention_mask": mask.long()}])


def compare_batches(
    bench: Bench, what: str, model: BertModel, theirs: nn.Module, given: Sequence[Mapping[str, torch.Tensor]]
) -> None:
    """Compare both encoders' hidden states for the batches given, then time them."""

    def run(encoder: nn.Module, bf16: bool) -> Callable[[], object]:
        def all_batches() -> None:
            with torch.inference_mode():
                for batch in given:
                    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                        _ = encoder(**batch).last_hidden_state

        return all_batches

    for batch in given:
        with torch.inference_mode():
            kept = batch["attention_mask"].bool()
            difference = model(**batch).last_hidden_state[kept] - theirs(**batch).last_hidden_state[kept]
        assert difference.abs().max().item() < 1e-4
    sides = {"bfloat16": run(model, True), "float32": run(model, False)}
    bench.compare(what, sides | {"B0": run(theirs, False), "B0 bf16": run(theirs, True)})


def base(bench: Bench) -> None:
    """Time training and lists at the size of BERT-base."""
    training(bench, bench.base(), "BERT-base, training round")
    lists(bench, bench.base(), "BERT-base, list")


def long(bench: Bench) -> None:
    """Time training on 8 rows of 256 to 512 tokens, and outputs of 16."""
    ours, tokenizer, theirs, _, _ = bench.models(bench.weights)
    words = cycle(" ".join(row.texts[0] for row in bench.prepared.train["sst"].examples).split())
    rng = np.random.default_rng(0)
    texts = [" ".join(islice(words, int(count))) for count in rng.integers(210, 420, 8 * bench.args.rounds)]
    parts = [texts[start : start + 8] for start in range(0, len(texts), 8)]
    tokens = [tokenizer(part, truncation=True, max_length=512) for part in parts]
    rounds = [{"sst": Batch(batch, torch.arange(8) % 5)} for batch in tokens]
    sides, flops = training_sides(bench, bench.weights, rounds)
    bench.compare("long text, training, 8 rows", sides, real_flops=flops)
    model = BertModel.from_pretrained(bench.weights)
    compare_batches(bench, "long text, outputs of 8 rows", model, theirs.eval(), tokens[:2])


def profile(bench: Bench) -> None:
    """Say which operators' own time training and padded batches go to: shares of the sum, the largest first."""
    ours, tokenizer, *_ = bench.models(bench.weights)
    rounds = drawn_rounds(bench, ours, tokenizer)
    update = Stepper(ours.train(), bench.config.train, np.random.default_rng(0), torch.bfloat16)
    model = BertModel.from_pretrained(bench.weights)

    def outputs() -> None:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            for batches in rounds:
                _ = model(**batches["para"].tokens).last_hidden_state

    def train() -> None:
        for batches in rounds:
            update.round(batches, 1.0)

    for what, run in (("training", train), ("padded batches", outputs)):
        run()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
            run()
        operators = sorted(found.key_averages(), key=lambda each: -each.self_cpu_time_total)
        total = sum(each.self_cpu_time_total for each in operators)
        shares = {each.key: round(each.self_cpu_time_total / total, 3) for each in operators[:14]}
        bench.add({"what": f"profile, {what}", **shares})


def adamw(bench: Bench) -> None:
    """Time a step of AdamW over all parameters."""

    def side(build: Callable[[Any], torch.optim.Optimizer]) -> Callable[[], object]:
        model = BertModel.from_pretrained(bench.weights)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        return build(model.parameters()).step

    sides: SIDES = {"minbert": side(lambda parameters: AdamW(parameters, lr=1e-5))}
    sides["torch fused"] = side(lambda parameters: torch.optim.AdamW(parameters, lr=1e-5, fused=True))
    sides["torch"] = side(lambda parameters: torch.optim.AdamW(parameters, lr=1e-5))
    bench.compare("AdamW step, 22.7M parameters", sides)


SECTIONS: dict[str, Callable[[Bench], None]] = {
    "ceiling": ceiling,
    "training": training,
    "list": lists,
    "batch": batches,
    "base": base,
    "long": long,
    "lora": lora,
    "adamw": adamw,
    "profile": profile,
    "memory": processes.memory,
    "import": processes.imports,
    "pairs": processes.pairs,
    "predict": processes.predict,
    "ranks": processes.ranks,
}


def main() -> None:
    """Measure the sections that the command line names, and print a line for each result."""
    parser = argparse.ArgumentParser(description="Measure this library beside transformers and ONNX Runtime.")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the course's files (data)")
    parser.add_argument("--tasks", type=Path, help="a TOML file with tasks sst, para and sts, instead of the course's")
    parser.add_argument("--weights", help="name, hub id or folder of a BERT (all-minilm-l6-v2)")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), help="what to measure")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each side (5)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--train-side", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(args.threads)
    about = {"machine": machine(), "threads": args.threads, "torch": torch.__version__}
    if not args.json:
        print(about, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, Path(folder))
        if args.train_side:
            processes.train_side(bench, args.train_side)
            return
        for name in args.only:
            SECTIONS[name](bench)
    if args.json:
        print(json.dumps({**about, "lines": bench.lines}, indent=2))


if __name__ == "__main__":
    main()
