"""Show which tokens a trained task looks at, as its attention pooling weighs them; about half a minute.

    python examples/07_look_inside.py "I was charged twice this month."

Attention pooling has one query for a sentence, made of the pooler's output, and averages the tokens' states by their
attention weights. Trains a help desk's topics on 60 rows first, unless --run names a run. Prints the answer and for
each token its weight, the mean over the heads, times the number of tokens: 1 is the weight in a plain mean. After so
few rows all are near 1, so a bar shows the difference, the longest one the largest. --heads prints each head's weights
as well.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import torch

from minbert import MinbertError, MultiHeadAttention
from multitask import Run, build_config, train

TASKS = Path(__file__).parent / "own_task.toml"
WIDTH = 40


def shares(run: Run, task: str, text: str) -> tuple[list[str], torch.Tensor]:
    """Return the tokens of a text, and how much each head of the task's pooling takes of each, (heads, tokens)."""
    parts = run.model.decoders[task].modules()
    attention = next((part for part in parts if isinstance(part, MultiHeadAttention)), None)
    if attention is None:
        raise SystemExit(f"error: the pooling of {task} must be attention, got {run.model.tasks[task].pooling}")
    batch = run.tokenizer(text, truncation=True).to(run.device)
    with torch.inference_mode():
        encoded = run.model.encoder_of(task)(**batch)
        _, weights = attention(encoded.packed, encoded.packing, encoded.pooler_output)  # (1, heads, 1, tokens)
    return [run.tokenizer.decode([token]) for token in batch.input_ids[0].tolist()], weights[0, :, 0]


def main(argv: list[str] | None = None) -> int:
    """Train or load a run, and print what it looks at.

    :param argv: the command line's arguments; None for those of this process.
    :return: the exit status.
    """
    parser = argparse.ArgumentParser(description="Show which tokens attention pooling looks at.")
    parser.add_argument("text", nargs="?", default="I was charged twice for the same parcel.", help="a sentence")
    parser.add_argument("--run", type=Path, help="a run folder, whose first task is used")
    parser.add_argument("--weights", default="all-minilm-l6-v2", help="what to train from, without --run")
    parser.add_argument("--epochs", type=int, default=3, help="epochs to train, without --run")
    parser.add_argument("--heads", action="store_true", help="show each head")
    args = parser.parse_args(argv)

    if args.run:
        run = Run.load(args.run)
    else:
        # The rate is for the query to learn much in so few steps.
        sets = ["tasks.topic.pooling=attention", "tasks.topic.decoder_lr=2e-3"]
        config = build_config(tasks_file=TASKS, weights=args.weights, epochs=args.epochs, sets=sets)
        with tempfile.TemporaryDirectory() as folder:
            run = train(config, Path(folder) / "run")
    task = next(iter(run.model.tasks))
    tokens, weights = shares(run, task, args.text)
    weights = weights * len(tokens)  # in even shares
    mean = weights.mean(0)
    longest = (mean - 1).abs().max().item()
    print(f"{task}: {run.predict(task, [args.text])[0].label}")
    for token, share, by_head in zip(tokens, mean.tolist(), weights.T.tolist(), strict=True):
        heads = " ".join(f"{head:.2f}" for head in by_head) + "  " if args.heads else ""
        bar = ("+" if share > 1 else "-") * round(WIDTH * abs(share - 1) / longest)
        print(f"{token:>12}  {share:.3f}  {heads}{bar}".rstrip())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MinbertError as error:
        sys.exit(f"error: {error}")
