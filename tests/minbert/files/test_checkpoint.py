"""Checkpoints: every layout that HuggingFace writes is read, misfits are named, what is saved loads there."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from minbert import BertConfig, BertForPreTraining, BertModel, WeightsError

Tensors = dict[str, Tensor]
INPUTS = {
    "input_ids": torch.tensor([[2, 9, 30, 71, 3], [2, 8, 3, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]),
    "token_type_ids": torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]),
}


def outputs(model: Any) -> Tensor:
    """Pooler output and hidden states of unmasked positions in one tensor."""
    with torch.no_grad():
        output = model(**INPUTS)
    states = output.last_hidden_state[INPUTS["attention_mask"].bool()]
    return torch.cat([states.flatten(), output.pooler_output.flatten()])


@pytest.fixture(scope="module")
def expected(tiny_weights: Path) -> Tensor:
    return outputs(BertModel.from_pretrained(tiny_weights))


@pytest.fixture
def rewrite(tiny_weights: Path, tmp_path: Path) -> Callable[..., Path]:
    """A function that saves the tiny checkpoint's tensors, changed, in a folder of their own."""

    def make(change: Callable[[Tensors], Tensors], **config: Any) -> Path:
        values = json.loads((tiny_weights / "config.json").read_text()) | config
        (tmp_path / "config.json").write_text(json.dumps(values))
        save_file(change(load_file(tiny_weights / "model.safetensors")), tmp_path / "model.safetensors")
        return tmp_path

    return make


def plain_encoder(tensors: Tensors) -> Tensors:
    """Without heads and without the `bert.` prefix."""
    return {name[5:]: tensor for name, tensor in tensors.items() if name.startswith("bert.")}


def report_of(model: Any) -> Any:
    assert model.load_report is not None
    return model.load_report


# What is read


def test_prefix_and_heads(tiny_weights: Path, expected: Tensor) -> None:
    model = BertModel.from_pretrained(tiny_weights)
    assert not model.training
    heads = [name for name in load_file(tiny_weights / "model.safetensors") if name.startswith("cls.")]
    assert len(heads) == 7
    assert sorted(report_of(model).dropped) == sorted(heads)
    assert not report_of(model).renamed
    assert torch.equal(outputs(model), expected)


def test_without_prefix(rewrite: Any, expected: Tensor) -> None:
    model = BertModel.from_pretrained(rewrite(plain_encoder))
    assert torch.equal(outputs(model), expected)
    assert not report_of(model).dropped


def test_old_layer_norm_names(rewrite: Any, expected: Tensor) -> None:
    def change(tensors: Tensors) -> Tensors:
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, name in old.items():
            tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
        return tensors

    model = BertModel.from_pretrained(rewrite(change))
    assert torch.equal(outputs(model), expected)
    assert len(report_of(model).renamed) == 2 * (1 + 2 * 2)
    assert all("gamma" in name or "beta" in name for name in report_of(model).renamed)


def test_only_a_layer_norms_gamma_is_renamed(rewrite: Any) -> None:
    folder = rewrite(lambda tensors: {**tensors, "bert.gamma": torch.ones(1), "bert.my.beta": torch.ones(1)})
    with pytest.raises(WeightsError, match="unexpected gamma.*unexpected my.beta"):
        BertModel.from_pretrained(folder)


def test_extra_heads_and_position_ids_are_dropped_and_reported(rewrite: Any, expected: Tensor) -> None:
    extra = {
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "classifier.weight": torch.ones(2, 32),
        "classifier.bias": torch.ones(2),
        "qa_outputs.weight": torch.ones(2, 32),
    }
    model = BertModel.from_pretrained(rewrite(lambda tensors: {**tensors, **extra}))
    assert torch.equal(outputs(model), expected)
    assert set(extra) < set(report_of(model).dropped)
    assert "dropped" in str(report_of(model))


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_shards(rewrite: Any, expected: Tensor, prefix: str) -> None:
    folder = rewrite(lambda tensors: {prefix + name: t for name, t in plain_encoder(tensors).items()})
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = [f"model-0000{part + 1}-of-00003.safetensors" for part in range(3)]
    for part, file in enumerate(files):
        save_file({name: tensors[name] for name in names[part::3]}, folder / file)
    weight_map = {name: files[number % 3] for number, name in enumerate(names)}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    assert torch.equal(outputs(BertModel.from_pretrained(folder)), expected)
    (folder / files[1]).unlink()
    with pytest.raises(WeightsError, match=files[1]):
        BertModel.from_pretrained(folder)
    index.write_text(json.dumps({"weight_map": {**weight_map, "bert.more": files[0]}}))
    shutil.copy(folder / files[0], folder / files[1])
    with pytest.raises(WeightsError, match=r"index.json.* do not hold"):
        BertModel.from_pretrained(folder)
    index.write_text('{"weight_map": {"a": "../model.safetensors"}}')
    with pytest.raises(WeightsError, match="same folder"):
        BertModel.from_pretrained(folder)


def test_without_a_pooler(rewrite: Any, expected: Tensor) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if "pooler" not in name}

    folder = rewrite(change)
    with pytest.raises(WeightsError, match="missing pooler.dense.*add_pooling_layer=False"):
        BertModel.from_pretrained(folder)
    model = BertModel.from_pretrained(folder, add_pooling_layer=False)
    with torch.no_grad():
        output = model(**INPUTS)
    assert output.pooler_output is None
    states = output.last_hidden_state[INPUTS["attention_mask"].bool()].flatten()
    assert torch.equal(states, expected[: len(states)])


def test_a_pooler_that_is_not_wanted_is_dropped(tiny_weights: Path) -> None:
    model = BertModel.from_pretrained(tiny_weights, add_pooling_layer=False)
    assert model(**INPUTS).pooler_output is None
    assert {"bert.pooler.dense.weight", "bert.pooler.dense.bias"} < set(report_of(model).dropped)


def test_an_untrained_pooler_is_mentioned(rewrite: Any, tiny_weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(tensors: Tensors) -> Tensors:
        return {**tensors, "bert.pooler.dense.bias": torch.zeros(32)}

    assert not report_of(BertModel.from_pretrained(tiny_weights)).notes
    assert not caplog.messages
    folder = rewrite(change)
    (note,) = report_of(BertModel.from_pretrained(folder)).notes
    assert "pooler looks untrained" in note
    assert str(folder) in note
    assert caplog.messages == [note]


def test_half_precision_is_widened_and_reported(rewrite: Any, expected: Tensor) -> None:
    model = BertModel.from_pretrained(rewrite(lambda tensors: {n: t.half() for n, t in tensors.items()}))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert len(report_of(model).converted) == len(list(model.parameters()))
    assert (outputs(model) - expected).abs().max() < 0.05


def test_dropout_replaces_the_rates_of_the_folder(tiny_weights: Path) -> None:
    config = BertModel.from_pretrained(tiny_weights, dropout=0.25).config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.25, 0.25)
    assert BertModel.from_pretrained(tiny_weights).config.hidden_dropout_prob == 0.1


# What is refused


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
    assert "missing encoder.layer.1.output.dense.bias" in message
    assert "missing embeddings.LayerNorm.weight" in message
    assert "encoder.layer.0.intermediate.dense.weight has shape (3, 32), (64, 32) is due" in message
    assert "unexpected encoder.layer.7.output.dense.bias" in message
    assert "encoder.layer.0.output.dense.bias holds NaN" in message
    assert "encoder.layer.1.attention.self.key.bias holds torch.int64" in message
    assert "\n" not in message


def test_files_that_are_no_safetensors(rewrite: Any) -> None:
    folder = rewrite(plain_encoder)
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    for content, message in [
        (b"", "0 bytes"),
        (bytes(len(whole)), "no safetensors header"),
        (struct.pack("<Q", 2**40) + whole[8:], "cut short"),
        (struct.pack("<Q", 2**27) + bytes(2**27 + 8), "can't be read as safetensors"),
        (whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2), "zero throughout"),
        (whole[:1000], "cut short"),
        (whole[:-1], "can't be read as safetensors"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"PK\x03\x04" + whole, "pickle or zip"),
        (b"\x80\x02" + whole, "pickle or zip"),
    ]:
        file.write_bytes(content)
        with pytest.raises(WeightsError, match=message) as caught:
            BertModel.from_pretrained(folder)
        assert str(folder) in str(caught.value)
    file.unlink()
    with pytest.raises(WeightsError, match="holds neither"):
        BertModel.from_pretrained(folder)
    (folder / "pytorch_model.bin").write_bytes(b"PK")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin.*save_pretrained"):
        BertModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "roberta"}, "model_type is 'roberta'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"is_decoder": True}, "is_decoder"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'"),
        ({"num_attention_heads": 5}, "hidden_size is 32"),
        ({"hidden_size": "32"}, "hidden_size is '32'"),
    ],
)
def test_a_config_of_another_architecture_is_refused(rewrite: Any, values: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        BertModel.from_pretrained(rewrite(plain_encoder, **values))


# What is saved


@pytest.mark.parametrize("pooler", [True, False])
def test_what_is_saved_loads_here(tiny_weights: Path, tmp_path: Path, pooler: bool) -> None:
    model = BertModel.from_pretrained(tiny_weights, add_pooling_layer=pooler)
    model.save_pretrained(tmp_path / "new")
    again = BertModel.from_pretrained(tmp_path / "new", add_pooling_layer=pooler)
    assert again.config == model.config
    for (name, first), (_, second) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(first, second), name
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["config.json", "model.safetensors"]


def test_saving_onto_the_file_it_was_read_from(rewrite: Any, expected: Tensor) -> None:
    folder = rewrite(lambda tensors: tensors)
    BertModel.from_pretrained(folder).save_pretrained(folder)
    again = BertModel.from_pretrained(folder)
    assert torch.equal(outputs(again), expected)
    assert not report_of(again).dropped


def test_what_is_saved_loads_in_transformers(transformers: Any, tiny_weights: Path, tmp_path: Path) -> None:
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
def test_what_transformers_shards_loads_here(make_pair: Any, tmp_path: Path, heads: bool) -> None:
    _, theirs = make_pair(0, heads=heads, vocab_size=100)
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    encoder = theirs.bert if heads else theirs
    assert (outputs(BertModel.from_pretrained(tmp_path)) - outputs(encoder)).abs().max() <= 1e-5


def test_pretraining_heads_go_there_and_back(transformers: Any, tiny_weights: Path, tmp_path: Path) -> None:
    model = BertForPreTraining.from_pretrained(tiny_weights)
    assert not report_of(model).dropped
    model.save_pretrained(tmp_path)
    theirs, report = transformers.BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    kept = INPUTS["attention_mask"].bool()
    with torch.no_grad():
        found, expected = BertForPreTraining.from_pretrained(tmp_path)(**INPUTS), theirs.eval()(**INPUTS)
    assert (found.prediction_logits - expected.prediction_logits)[kept].abs().max() <= 1e-5
    assert (found.seq_relationship_logits - expected.seq_relationship_logits).abs().max() <= 1e-5


def test_a_checkpoint_without_heads_has_none_to_load(rewrite: Any) -> None:
    with pytest.raises(WeightsError, match=r"missing cls\.predictions\.transform\.dense\.weight"):
        BertForPreTraining.from_pretrained(rewrite(plain_encoder))


def test_copies_of_tied_parameters_are_left_out(rewrite: Any) -> None:
    def change(tensors: Tensors) -> Tensors:
        copy = tensors["bert.embeddings.word_embeddings.weight"].clone()
        bias = tensors["cls.predictions.bias"].clone()
        return {**tensors, "cls.predictions.decoder.weight": copy, "cls.predictions.decoder.bias": bias}

    model = BertForPreTraining.from_pretrained(rewrite(change))
    assert set(report_of(model).dropped) == {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
