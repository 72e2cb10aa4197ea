"""Runs on every member of the family: trained, resumed, begun from, loaded, read by transformers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers, trainers

from minbert.config import BertConfig
from minbert.files.storage import read_tensors
from minbert.model import BertModel
from minbert.tokenizer import BertTokenizer
from multitask import Run
from multitask.errors import ConfigError
from multitask.settings.config import RunConfig
from multitask.training.train import train as train_run

MakeConfig = Callable[..., RunConfig]
pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ("sst", "para", "sts")
WORDS = ["good", "lovely", "great", "bad", "dull", "poor", "film", "story", "the", "a"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
KINDS: dict[str, dict[str, Any]] = {
    "distilbert": {"type_vocab_size": 0},
    "mpnet": {"type_vocab_size": 0, "relative_attention_num_buckets": 32, "pad_token_id": 1, "layer_norm_eps": 1e-5},
    "roberta": {"type_vocab_size": 1, "pad_token_id": 1},
    "xlm-roberta": {"type_vocab_size": 1, "pad_token_id": 1},
}
CLASSES = {
    "distilbert": "DistilBertTokenizer",
    "mpnet": "MPNetTokenizer",
    "roberta": "RobertaTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}


def write_tokenizer(folder: Path, kind: str) -> None:
    """A small tokenizer of the kind that the member has: WordPiece, byte-level BPE or Unigram."""
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": CLASSES[kind]}))
    if kind in ("distilbert", "mpnet"):
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] if kind == "distilbert" else [*SPECIAL, "[UNK]"]
        more = [] if kind == "distilbert" else ["<mask>"]
        (folder / "vocab.txt").write_text("\n".join([*special, *WORDS, *more]) + "\n", encoding="utf-8")
    elif kind == "roberta":
        backend = tokenizers.Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=320, special_tokens=[*SPECIAL, "<mask>"], initial_alphabet=letters, show_progress=False
        )
        backend.train_from_iterator([" ".join(WORDS)] * 5, trainer)
        backend.model.save(str(folder))
        (folder / "vocab.json").write_text(json.dumps(backend.get_vocab()), encoding="utf-8")
    else:
        pieces = [(f"▁{word}", -float(rank)) for rank, word in enumerate(WORDS, 1)]
        vocabulary = [*((token, 0.0) for token in SPECIAL), *pieces, ("<mask>", 0.0)]
        backend = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=3))
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.add_special_tokens([*SPECIAL, tokenizers.AddedToken("<mask>", lstrip=True, special=True)])
        backend.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function of a model_type: a folder of random weights and a tokenizer, as save_pretrained leaves them."""
    folders: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = folder = tmp_path_factory.mktemp(kind)
            torch.manual_seed(0)
            config = BertConfig(
                model_type=kind,
                vocab_size=320,
                max_position_embeddings=40,
                initializer_range=0.2,
                **SIZES,
                **KINDS[kind],
            )
            BertModel(config).save_pretrained(folder)
            write_tokenizer(folder, kind)
        return folders[kind]

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_a_member_resumes_begins_another_and_is_read_by_transformers(
    kind: str,
    member: Callable[[str], Path],
    make_config: MakeConfig,
    train: Callable[..., None],
    stopped_run: Callable[..., None],
    contents: Callable[[Path], dict[str, bytes]],
    tmp_path: Path,
) -> None:
    config = make_config("train.rounds=4", weights=member(kind))
    train(config, tmp_path / "whole")
    stopped_run(config, tmp_path / "run", 4 * 5 + 2)
    train(config, tmp_path / "run", resume=True)
    assert contents(tmp_path / "run") == contents(tmp_path / "whole")

    run = Run.load(tmp_path / "run", device="cpu", precision="float32")
    texts = ["the good film", "dull story a poor film the story", ""]
    together, alone = run.predict("sst", texts), [run.predict("sst", [text])[0] for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-6)
    poolings = {task.pooling for task in run.model.tasks.values()}
    assert poolings == {"mean" if kind == "distilbert" else "attention"}
    notes = " ".join(json.loads((tmp_path / "run" / "record.json").read_text())["notes"])
    assert notes.count("no pooler") == (kind == "distilbert")

    still = [f"tasks.{name}.{rate}=0.0" for name in NAMES for rate in ("lr", "decoder_lr")]
    again = train_run(
        make_config(*still, weights=member(kind), epochs=1),
        tmp_path / "again",
        from_run=tmp_path / "run",
        progress=False,
    )
    assert json.loads((again.folder / "record.json").read_text())["from"]["new"] == {"encoders": {}, "decoders": {}}
    weights = [read_tensors(folder / "best" / "model.safetensors") for folder in (tmp_path / "run", again.folder)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())

    assert_transformers_reads(tmp_path / "run" / "best", run.model.encoder_of("sst"), run.tokenizer)


def assert_transformers_reads(folder: Path, encoder: BertModel, tokenizer: BertTokenizer) -> None:
    """Ids and hidden states of a pair and a text are those of transformers.AutoTokenizer and AutoModel."""
    transformers = pytest.importorskip("transformers", reason="compares with transformers, which is not installed")
    theirs = transformers.AutoModel.from_pretrained(str(folder), local_files_only=True).eval()
    other = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    for texts in (["the good film", "a story"], (["a film"], ["the dull story"])):
        asked = texts if isinstance(texts, tuple) else (texts,)
        batch = tokenizer(*asked)
        expected = other(*asked, padding=True, return_tensors="pt")
        assert torch.equal(batch.input_ids, expected["input_ids"])
        with torch.no_grad():
            mine = encoder(**batch).last_hidden_state
            hidden = theirs(batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        real = batch.attention_mask.bool()
        assert (mine[real] - hidden[real]).abs().max().item() < 1e-5


def test_each_encoder_of_a_run_is_a_folder_of_its_own(
    member: Callable[[str], Path], make_config: MakeConfig, tmp_path: Path
) -> None:
    sets = ["encoder.checkpoint_layers=true", "train.moments=shared", *(f"tasks.{name}.batch_size=4" for name in NAMES)]
    config = make_config(*sets, "train.rounds=2", preset="slt", weights=member("mpnet"), epochs=1)
    run = train_run(config, tmp_path / "run", progress=False)
    for name in NAMES:
        assert_transformers_reads(tmp_path / "run" / "best" / name, run.model.encoder_of(name), run.tokenizer)


def test_a_published_pooling_needs_the_pooler_that_distilbert_lacks(
    member: Callable[[str], Path], make_config: MakeConfig, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"tasks\.sst\.pooling must be one of cls, .* no pooler, got 'pooler'"):
        train_run(make_config(preset="mtl-clb-sep", weights=member("distilbert")), tmp_path / "run", progress=False)


@pytest.mark.slow
def test_two_processes_train_mpnet_and_agree(
    member: Callable[[str], Path], make_config: MakeConfig, start: Any, finish: Any, options: Any, tmp_path: Path
) -> None:
    words = ["-m", "multitask", "train", *options(make_config(weights=member("mpnet")), tmp_path), "--out"]
    words = [word if word != "18" else "3" for word in words]
    finish(start(2, *words, tmp_path / "run"))
    assert Run.load(tmp_path / "run").evaluate()["sst"].n == 24
