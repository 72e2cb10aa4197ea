"""Train on the rows of a pandas DataFrame, score some that were held out, and predict into a DataFrame.

    python examples/05_dataframe.py

Prints the accuracy on 12 of 60 messages to a help desk, and a table of three new messages with topic and
probabilities, in about half a minute on two cores. The messages were written for this project: four topics, 15 each.
Needs pandas: pip install -c constraints.txt '.[examples]'.
"""

import argparse
import sys
import time
from pathlib import Path

import pandas as pd

from minbert import MinbertError
from multitask import Task, train

FILE = Path(__file__).parent / "data" / "helpdesk.tsv"

NEW = [
    "I was billed twice this month.",
    "My parcel still has not come.",
    "I forgot my password and can't log in.",
]


def main(argv: list[str] | None = None) -> int:
    """Train, score and predict.

    :param argv: the command line's arguments; None for those of this process.
    :return: the exit status.
    """
    parser = argparse.ArgumentParser(description="Sort messages to a help desk, from a DataFrame into a DataFrame.")
    parser.add_argument("--out", type=Path, help="run folder to write (runs/dataframe-TIME)")
    parser.add_argument("--weights", default="all-minilm-l6-v2", help="name, hub id or folder of the encoder")
    parser.add_argument("--epochs", type=int, default=3, help="epochs to train")
    args = parser.parse_args(argv)
    out = args.out or Path("runs") / time.strftime("dataframe-%Y%m%d-%H%M%S")

    messages = pd.read_csv(FILE, sep="\t")
    dev = messages.groupby("topic").sample(3, random_state=1)
    task = Task(name="topic", text="message", label="topic")
    data = {"topic": {"train": messages.drop(dev.index), "dev": dev}}
    run = train(tasks=[task], data=data, weights=args.weights, epochs=args.epochs, out=out)

    score = run.evaluate("dev")["topic"]
    print(f"\n{score.metric} {score.value:.2f} on {score.n} rows that were held out\n")
    new = pd.DataFrame({"message": NEW}, index=["first", "second", "third"])
    answers = run.predict("topic", new)
    print(new.join(answers.drop(columns="truncated")).round(2).to_string(max_colwidth=40))
    print(f"\nThe run is in {out}. A run that is loaded later is given its rows again:")
    print(f"  Run.load({str(out)!r}).evaluate('dev', data={{'topic': frame}})")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MinbertError as error:
        sys.exit(f"error: {error}")
