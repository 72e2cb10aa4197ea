"""Checkpoints that do not fit are refused with every misfit named; what is saved loads in transformers."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minbert import BertConfig, BertForPreTraining, BertModel, WeightsError

Tensors = dict[str, Tensor]


def test_all_misfits_are_in_one_error(rewrite: Any) -> None:
    def change(tensors: Tensors) -> Tensors:
        del tensors["bert.encoder.layer.1.output.dense.bias"]
        del tensors["bert.embeddings.LayerNorm.weight"]
        tensors["bert.encoder.layer.0.intermediate.dense.weight"] = torch.ones(3, 32)
        tensors["bert.encoder.layer.7.output.dense.bias"] = torch.ones(32)
        tensors["bert.encoder.layer.0.output.dense.bias"] = torch.full((32,), float("nan"))
        tensors["bert.encoder.layer.1.attention.self.key.bias"] = torch.ones(32, dtype=torch.int64)
        return tensors

    folder = rewrite(change)
    with pytest.raises(WeightsError) as caught:
        BertModel.from_pretrained(folder)
    message = str(caught.value)
    assert str(folder) in message
    assert "missing bert.encoder.layer.1.output.dense.bias" in message
    assert "missing bert.embeddings.LayerNorm.weight" in message
    assert "bert.encoder.layer.0.intermediate.dense.weight must have shape (64, 32), got (3, 32)" in message
    assert "unexpected bert.encoder.layer.7.output.dense.bias" in message
    assert "bert.encoder.layer.0.output.dense.bias must be finite, got NaN" in message
    assert "and 1 more" in message  # that of another type: a message names five
    assert "\n" not in message


def test_quantized_weights_are_not_downloaded_again(rewrite: Any) -> None:
    with pytest.raises(WeightsError, match="must be of a floating-point type, got torch.int8") as caught:
        BertModel.from_pretrained(rewrite(lambda tensors: {n: t.to(torch.int8) for n, t in tensors.items()}))
    assert "download" not in str(caught.value)


def test_files_that_are_no_safetensors(plain_encoder: Callable[[Tensors], Tensors], rewrite: Any) -> None:
    folder = rewrite(plain_encoder)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for content, message in [
        (b"", "must have a safetensors header, got 0 bytes"),
        (bytes(len(whole)), "must have a safetensors header, got [0-9]+ bytes without one"),
        (struct.pack("<Q", 2**40) + whole[8:], "must be whole, got a header of"),
        (struct.pack("<Q", 2**27) + bytes(2**27 + 8), "can't be read as safetensors"),
        (whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2), "zero throughout"),
        (whole[:1000], "must be whole, got a header of"),
        (whole[:-1], "can't be read as safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "must be the weights, got a git-lfs pointer"),
        (b"PK\x03\x04" + whole, "pickle or zip"),
        (b"\x80\x02" + whole, "pickle or zip"),
    ]:
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=message) as caught:
            BertModel.from_pretrained(folder)
        assert str(folder) in str(caught.value)
    file.unlink()
    with pytest.raises(WeightsError, match="must hold model.safetensors or .*, found neither"):
        BertModel.from_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin.*save_pretrained"):
        BertModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "albert"}, "model_type must be one of bert, distilbert, .*, mpnet, got 'albert'"),
        ({"model_type": None}, "model_type must be one of bert, .*, got None"),
        (
            {"position_embedding_type": "relative_key"},
            "position_embedding_type must be 'absolute' .*got 'relative_key'",
        ),
        ({"is_decoder": True}, "is_decoder must be False .*got True"),
        ({"hidden_act": "mish"}, "hidden_act must be one of gelu, relu, silu, .*, got 'mish'"),
        ({"num_attention_heads": 5}, r"hidden_size must be a multiple of num_attention_heads .5., got 32"),
        ({"hidden_size": "32"}, "hidden_size must be of type int, got '32'"),
    ],
)
def test_a_config_of_another_architecture_is_refused(
    plain_encoder: Callable[[Tensors], Tensors], rewrite: Any, values: Any, message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        BertModel.from_pretrained(rewrite(plain_encoder, **values))


@pytest.mark.parametrize("pooler", [True, False])
def test_what_is_saved_loads_here(tiny_weights: Path, tmp_path: Path, pooler: bool) -> None:
    model = BertModel.from_pretrained(tiny_weights, add_pooling_layer=pooler)
    model.save_pretrained(tmp_path / "new")
    again = BertModel.from_pretrained(tmp_path / "new", add_pooling_layer=pooler)
    assert again.config == model.config
    for (name, first), (_, second) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(first, second), name
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["config.json", "model.safetensors"]


def test_saving_onto_the_file_it_was_read_from(outputs: Callable[..., Tensor], rewrite: Any, expected: Tensor) -> None:
    folder = rewrite(lambda tensors: tensors)
    BertModel.from_pretrained(folder).save_pretrained(folder)
    again = BertModel.from_pretrained(folder)
    assert torch.equal(outputs(again), expected)
    assert not again.load_report.dropped


def test_what_is_saved_loads_in_transformers(
    outputs: Callable[..., Tensor], transformers: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    model = BertModel.from_pretrained(tiny_weights)
    model.save_pretrained(tmp_path)
    theirs, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (outputs(model) - outputs(theirs.eval())).abs().max() <= 1e-5
    config = transformers.BertConfig.from_pretrained(tmp_path)
    assert config.hidden_size == 32
    assert config.architectures == ["BertModel"]
    for name, value in BertConfig.from_folder(tmp_path).to_dict().items():
        assert getattr(config, name) == value, name


@pytest.mark.parametrize("heads", [False, True])
def test_what_transformers_shards_loads_here(
    outputs: Callable[..., Tensor], make_pair: Any, tmp_path: Path, heads: bool
) -> None:
    _, theirs = make_pair(0, heads=heads, vocab_size=100)
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    encoder = theirs.bert if heads else theirs
    assert (outputs(BertModel.from_pretrained(tmp_path)) - outputs(encoder)).abs().max() <= 1e-5


def test_pretraining_heads_go_there_and_back(
    inputs: Tensors, transformers: Any, tiny_weights: Path, tmp_path: Path
) -> None:
    model = BertForPreTraining.from_pretrained(tiny_weights)
    assert not model.load_report.dropped
    model.save_pretrained(tmp_path)
    theirs, report = transformers.BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    kept = inputs["attention_mask"].bool()
    with torch.no_grad():
        found, expected = BertForPreTraining.from_pretrained(tmp_path)(**inputs), theirs.eval()(**inputs)
    assert (found.prediction_logits - expected.prediction_logits)[kept].abs().max() <= 1e-5
    assert (found.seq_relationship_logits - expected.seq_relationship_logits).abs().max() <= 1e-5


def test_a_checkpoint_without_heads_has_none_to_load(plain_encoder: Callable[[Tensors], Tensors], rewrite: Any) -> None:
    with pytest.raises(WeightsError, match=r"missing cls\.predictions\.transform\.dense\.weight"):
        BertForPreTraining.from_pretrained(rewrite(plain_encoder))


def test_copies_of_tied_parameters_are_left_out(rewrite: Any) -> None:
    def change(tensors: Tensors) -> Tensors:
        copy = tensors["bert.embeddings.word_embeddings.weight"].clone()
        bias = tensors["cls.predictions.bias"].clone()
        return {**tensors, "cls.predictions.decoder.weight": copy, "cls.predictions.decoder.bias": bias}

    model = BertForPreTraining.from_pretrained(rewrite(change))
    assert set(model.load_report.dropped) == {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
