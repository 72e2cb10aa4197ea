"""Compare sentences by the vectors of the encoder alone.

    python examples/01_encode.py "Where is my parcel?" "My package has not come." "I like trains."

Prints each sentence's cosine with the first, in about 5 seconds. A sentence's vector is the mean of its tokens' last
hidden states.
"""

import argparse
import sys

import torch

from minbert import BertModel, BertTokenizer, MinbertError, encode


def main(argv: list[str] | None = None) -> int:
    """Print the cosine of each sentence's vector with the first one's.

    :param argv: the command line's arguments; None for those of this process.
    :return: the exit status.
    """
    parser = argparse.ArgumentParser(description="Print how similar each sentence is to the first.")
    parser.add_argument("texts", nargs="*", help="sentences to compare")
    parser.add_argument("--weights", default="all-minilm-l6-v2", help="name, hub id or folder")
    args = parser.parse_args(argv)
    texts = args.texts or ["Where is my parcel?", "My package has not come.", "The train to Bern is late."]

    tokenizer = BertTokenizer.from_pretrained(args.weights)
    model = BertModel.from_pretrained(args.weights).eval()
    vectors = torch.nn.functional.normalize(encode(model, tokenizer, texts, max_length=256), dim=-1)
    for text, similarity in zip(texts, (vectors @ vectors[0]).tolist(), strict=True):
        print(f"{similarity:6.3f}  {text}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MinbertError as error:
        sys.exit(f"error: {error}")
