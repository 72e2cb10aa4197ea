"""Every member of the family: its config.json and weights go to `transformers` and back; its heads are left out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from minbert import BertConfig, BertForPreTraining, BertModel, InputError, WeightsError
from minbert.families.members import family_of
from minbert.files.checkpoint import has_pooler

OTHER_VALUES: dict[str, Any] = {
    "vocab_size": 77,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 10,
    "hidden_act": "silu",
    "hidden_dropout_prob": 0.25,
    "attention_probs_dropout_prob": 0.125,
    "max_position_embeddings": 60,
    "initializer_range": 0.5,
}
HEADS = ["MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice"]


def fields_of(config: BertConfig) -> dict[str, Any]:
    """A configuration's values under transformers' names, without those that the family has no part for."""
    return config.family.write_config({name: getattr(config, name) for name in config.__dataclass_fields__})


def named(transformers: Any, kind: str, end: str) -> Any:
    """transformers' class of a family, such as "Config"."""
    return getattr(transformers, family_of(kind).architecture.removesuffix("Model") + end)


def test_configurations_go_there_and_back(transformers: Any, kind: str, tmp_path: Path) -> None:
    fixed = family_of(kind).fixed
    keys = family_of(kind).keys
    for values in ({}, OTHER_VALUES):
        theirs = named(transformers, kind, "Config")(**{keys.get(name, name): value for name, value in values.items()})
        theirs.save_pretrained(tmp_path)
        mine = BertConfig.from_folder(tmp_path)
        assert mine.model_type == kind
        assert {name: getattr(mine, name) for name in values} == values
        assert {name: getattr(mine, name) for name in fixed} == fixed
        for name, value in fields_of(mine).items():
            assert getattr(theirs, name, value) == value, name
        (tmp_path / "config.json").write_text(json.dumps(mine.to_dict()))
        assert BertConfig.from_folder(tmp_path) == mine
        again = transformers.AutoConfig.from_pretrained(tmp_path)
        assert type(again) is type(theirs)
        for name in fields_of(mine):
            assert getattr(again, name) == getattr(theirs, name, fields_of(mine)[name]), name


def test_what_a_configuration_leaves_out_is_transformers_default(transformers: Any, kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    theirs = named(transformers, kind, "Config")()
    for name, value in fields_of(BertConfig.from_folder(tmp_path)).items():
        assert getattr(theirs, name, value) == value, name


def test_weights_go_there_and_back(
    transformers: Any, make_pair: Any, make_inputs: Any, kind: str, tmp_path: Path
) -> None:
    mine, theirs = make_pair(0, kind=kind)
    mine.save_pretrained(tmp_path)
    again, report = transformers.AutoModel.from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert type(again) is type(theirs)
    assert again.config.architectures == theirs.config.architectures
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    inputs = make_inputs(0, theirs.config, "holes")
    kept = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = theirs(**inputs).last_hidden_state[kept]
        assert torch.equal(again.eval()(**inputs).last_hidden_state[kept], expected)
        found = BertModel.from_pretrained(tmp_path)(**inputs).last_hidden_state[kept]
    assert (found - expected).abs().max() <= 1e-5
    assert has_pooler(tmp_path) == (kind != "distilbert")


@pytest.mark.parametrize("end", HEADS)
def test_heads_are_left_out_and_reported(transformers: Any, kind: str, end: str, tmp_path: Path) -> None:
    family = family_of(kind)
    values = {**OTHER_VALUES, "num_hidden_layers": 1}
    config = named(transformers, kind, "Config")(**{family.keys.get(name, name): v for name, v in values.items()})
    theirs = named(transformers, kind, f"For{end}")(config).eval()
    theirs.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    heads = {name for name in names if not name.startswith(family.prefix)}
    assert heads
    mine = BertModel.from_pretrained(tmp_path, add_pooling_layer=has_pooler(tmp_path))
    assert mine.load_report is not None
    assert set(mine.load_report.dropped) == heads
    assert not mine.load_report.prefix
    encoder = getattr(theirs, family.prefix.removesuffix("."))
    ids = torch.tensor([[5, 6, 1, 7]])
    with torch.no_grad():
        difference = mine(ids).last_hidden_state - encoder(ids).last_hidden_state
    assert difference.abs().max() <= 1e-5


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "model.", "0.auto_model.", "module._orig_mod."])
@pytest.mark.parametrize("headed", [False, True])
def test_what_a_wrapper_put_before_all_names_is_taken_off(
    make_pair: Any, kind: str, wrapper: str, headed: bool, tmp_path: Path
) -> None:
    mine, _ = make_pair(1, kind=kind)
    mine.save_pretrained(tmp_path)
    prefix = mine.config.family.prefix if headed else ""
    file = tmp_path / "model.safetensors"
    tensors = {f"{wrapper}{prefix}{name}": tensor for name, tensor in load_file(file).items()}
    head = {f"{wrapper}classifier.weight": torch.ones(2, 16)} if headed else {}
    save_file({**tensors, **head}, file)
    again = BertModel.from_pretrained(tmp_path)
    assert again.load_report is not None
    assert again.load_report.prefix == wrapper
    assert f"took '{wrapper}' off their names" in str(again.load_report)
    assert list(again.load_report.dropped) == list(head)
    assert has_pooler(tmp_path) == (kind != "distilbert")
    for (name, first), (_, second) in zip(mine.named_parameters(), again.named_parameters(), strict=True):
        assert torch.equal(first, second), name


def test_a_prefix_that_not_all_share_is_no_licence(rewrite: Any) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        wrapped = {f"module.{name}": tensor for name, tensor in tensors.items()}
        return {**wrapped, "pooler.dense.weight": torch.ones(32, 32), "linear.weight": torch.ones(3, 32)}

    folder = rewrite(change)
    with pytest.raises(WeightsError, match=r"model: unexpected linear.weight; unexpected pooler.dense.weight; to load"):
        BertModel.from_pretrained(folder)
    model = BertModel.from_pretrained(folder, drop=["linear.weight", "pooler.dense.weight"])
    assert model.load_report is not None
    assert model.load_report.prefix == "module."


def test_an_extra_tensor_can_be_let_go_by_name(rewrite: Any) -> None:
    folder = rewrite(lambda tensors: {**tensors, "linear.weight": torch.ones(3, 32)})
    with pytest.raises(
        WeightsError, match=r"unexpected linear.weight; to load without it pass drop=\['linear.weight'\]$"
    ):
        BertModel.from_pretrained(folder)
    for kind in (BertModel, BertForPreTraining):
        model = kind.from_pretrained(folder, drop=["linear.weight"])
        assert model.load_report is not None
        assert "linear.weight" in model.load_report.dropped
    with pytest.raises(InputError, match=r"drop: must name tensors of .*, got linear.bias, weight$"):
        BertModel.from_pretrained(folder, drop=["linear.bias", "linear.weight", "weight"])
    with pytest.raises(WeightsError, match=r"missing bert.embeddings.LayerNorm.bias; unexpected linear.weight$"):
        BertModel.from_pretrained(folder, drop=["bert.embeddings.LayerNorm.bias"])


def test_of_several_encoders_one_is_read_when_the_others_are_let_go(rewrite: Any) -> None:
    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**tensors, **{f"teacher.{name}": 2 * tensor for name, tensor in tensors.items()}}

    folder = rewrite(change)
    with pytest.raises(
        WeightsError, match=r"unexpected teacher\.\S+; .* and \d+ more; to load without them pass drop="
    ):
        BertModel.from_pretrained(folder)
    names = load_file(folder / "model.safetensors").keys()
    model = BertModel.from_pretrained(folder, drop=[name for name in names if name.startswith("teacher.")])
    assert model.load_report is not None
    assert not model.load_report.prefix


def test_the_hint_of_the_pooler_is_given_only_where_it_is_true(rewrite: Any) -> None:
    folder = rewrite(
        lambda tensors: {
            n: t for n, t in tensors.items() if "pooler" not in n and not n.endswith("r.0.output.dense.bias")
        }
    )
    with pytest.raises(WeightsError, match="missing bert.encoder.*missing bert.pooler.dense.weight") as caught:
        BertModel.from_pretrained(folder)
    assert "add_pooling_layer" not in str(caught.value)
    with pytest.raises(WeightsError, match="missing bert.encoder.*missing bert.pooler.dense.weight") as caught:
        BertForPreTraining.from_pretrained(folder)
    assert "add_pooling_layer" not in str(caught.value)


# What a member is not


@pytest.mark.parametrize("model_type", ["albert", "deberta-v2", "electra", "modernbert", "roberta-prelayernorm", "t5"])
def test_other_architectures_are_refused_by_name(rewrite: Any, model_type: str) -> None:
    folder = rewrite(lambda tensors: tensors, model_type=model_type)
    with pytest.raises(WeightsError, match=rf"config.json: model_type must be one of bert, .*, got '{model_type}'"):
        BertModel.from_pretrained(folder)
    with pytest.raises(InputError, match=rf"BertConfig.model_type must be one of bert, .*, got '{model_type}'"):
        BertConfig(model_type=model_type)


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("distilbert", {}, "type_vocab_size must be 0 for model_type distilbert, got 2"),
        ("distilbert", {"type_vocab_size": 0, "layer_norm_eps": 1e-5}, "layer_norm_eps must be 1e-12 .*got 1e-05"),
        ("mpnet", {"type_vocab_size": 0}, "relative_attention_num_buckets must be 32 for .*got 0"),
        ("bert", {"relative_attention_num_buckets": 32}, "relative_attention_num_buckets must be 0 for .*got 32"),
        ("bert", {"type_vocab_size": -1}, "type_vocab_size must be at least 0, got -1"),
        ("roberta", {"pad_token_id": 7, "max_position_embeddings": 8}, "must be above 8, .*got 8"),
    ],
)
def test_values_that_a_family_does_not_have_are_refused(kind: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"BertConfig.*{message}"):
        BertConfig(model_type=kind, **values)


def test_pretraining_heads_are_berts_own(make_pair: Any, kind: str, tmp_path: Path) -> None:
    if kind == "bert":
        return
    mine, _ = make_pair(0, kind=kind)
    mine.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"BertForPreTraining must be given model_type bert, got '{kind}'"):
        BertForPreTraining.from_pretrained(tmp_path)


def test_token_types_where_there_are_none(kernels: str, make_pair: Any) -> None:
    mine, _ = make_pair(0, kind="mpnet")
    ids = torch.tensor([[5, 6, 7]])
    assert mine.embeddings.token_type_embeddings is None
    with torch.no_grad():
        assert torch.equal(mine(ids, None, 0 * ids).last_hidden_state, mine(ids).last_hidden_state)
    with pytest.raises(InputError, match=r"token_type_ids: must be from 0 to 0 \(type_vocab_size\), got 1"):
        mine(ids, None, ids // ids)
