"""What an encoder makes of its arguments, and what it refuses before any product is computed."""

import torch
from torch import Tensor, nn

from minbert.config import BertConfig
from minbert.errors import InputError

__all__ = ["checked_inputs", "counted_positions", "refuse_quantized_autocast"]


def checked_inputs(
    config: BertConfig,
    device: torch.device,
    input_ids: Tensor,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Check the arguments of BertModel.forward.

    :param device: of the model's parameters.
    :return: the mask as bool and the token types, both (batch, seq).
    :raises InputError: for anything that the encoder can't compute, or that would give numbers without a meaning.
    """
    for name, tensor in (
        ("input_ids", input_ids),
        ("attention_mask", attention_mask),
        ("token_type_ids", token_type_ids),
    ):
        if isinstance(tensor, Tensor) and (tensor.device != device or tensor.layout != torch.strided):
            found = f"a {tensor.layout} tensor on {tensor.device}"
            raise InputError(f"{name}: must be a dense tensor on {device}, got {found}")
    _check_ids("input_ids", input_ids, config.vocab_size, "vocab_size")
    seq = input_ids.shape[1]
    if seq > config.max_tokens:
        first = f" - {config.first_position}" if config.first_position else ""
        raise InputError(
            f"input_ids: rows must have at most {config.max_tokens} tokens (max_position_embeddings{first}),"
            f" got {seq}; truncate the text"
        )
    if token_type_ids is None:
        token_type_ids = torch.zeros_like(input_ids)
    _check_shape("token_type_ids", token_type_ids, input_ids)
    # A family without token types has a tokenizer that gives zeros.
    _check_ids("token_type_ids", token_type_ids, max(1, config.type_vocab_size), "type_vocab_size")
    if attention_mask is None:
        return torch.ones_like(input_ids, dtype=torch.bool), token_type_ids
    _check_shape("attention_mask", attention_mask, input_ids)
    mask = attention_mask.bool()
    if attention_mask.dtype != torch.bool and bool((attention_mask != mask).any()):
        value = attention_mask[attention_mask != mask][0].item()
        raise InputError(f"attention_mask: must hold 0, 1 or bool, got {value}")
    unmasked = mask[:, 0]
    if not bool(unmasked.all()):
        row = int((~unmasked).nonzero()[0])
        what = "its first token" if bool(mask[row].any()) else "every token"
        raise InputError(f"attention_mask: the first token of each row must be real, got row {row} with {what} masked")
    return mask, token_type_ids


def counted_positions(input_ids: Tensor, padding: int) -> Tensor:
    """Count the tokens of each row that are not padding, from ``padding`` + 1 on; ``padding`` itself is padding's.

    Where a row's padding is all at its end, this is each token's column, moved. Source: transformers' RoBERTa, as in
    Ott et al. 2019 (fairseq), make_positions.

    :param input_ids: int64 or int32 (batch, seq).
    :param padding: the padding's id.
    :return: int64 (batch, seq).
    """
    real = (input_ids != padding).long()
    return real.cumsum(1) * real + padding


def _check_ids(name: str, ids: Tensor, limit: int, limit_name: str) -> None:
    if not isinstance(ids, Tensor) or ids.dtype not in (torch.int64, torch.int32):
        found = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError(f"{name}: must be an int64 or int32 tensor, got {found}")
    if ids.dim() != 2 or 0 in ids.shape:
        raise InputError(f"{name}: must have the shape (batch, seq), neither of them 0, got {tuple(ids.shape)}")
    low, high = (int(value) for value in ids.aminmax())
    if low < 0 or high >= limit:
        raise InputError(f"{name}: must be from 0 to {limit - 1} ({limit_name}), got {low if low < 0 else high}")


def _check_shape(name: str, given: Tensor, input_ids: Tensor) -> None:
    if not isinstance(given, Tensor) or given.shape != input_ids.shape:
        found = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
        raise InputError(f"{name}: must have the shape of input_ids, {tuple(input_ids.shape)}, got {found}")


def refuse_quantized_autocast(module: nn.Module, device: torch.device) -> None:
    """Refuse autocast over quantized linears, which take float32 alone.

    :raises InputError: where both are there, instead of torch's error from inside a product.
    """
    if device.type == "meta" or not torch.is_autocast_enabled(device.type):
        return
    if any(_is_quantized(part) for part in module.modules()):
        dtype = str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")
        raise InputError(f"quantized linears must be run without autocast, in float32, got {dtype} autocast")


def _is_quantized(part: nn.Module) -> bool:
    home = type(part).__module__
    return home.startswith("torch.") and "quantized" in home
