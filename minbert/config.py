"""Describe the shape of an encoder of BERT's family, in the words of HuggingFace's ``config.json``."""

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minbert.errors import InputError, WeightsError

if TYPE_CHECKING:
    from minbert.families.family import Family

__all__ = ["BertConfig"]

# Keys of config.json that would change the mathematics if they were ignored, with the values this encoder computes.
_ONLY = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}
_ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new", "gelu_pytorch_tanh")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BertConfig:
    """Sizes and rates of an encoder; the defaults are BERT-base, uncased.

    Source: Devlin et al. 2019 (arXiv 1810.04805), section 3 and appendix A.2. Field names are HuggingFace's. What a
    ``model_type`` stands for beside its sizes is in minbert/families/. ``type_vocab_size`` 0 means no token types,
    ``relative_attention_num_buckets`` 0 no bias of relative attention.

    :raises InputError: for a value that is not allowed.
    """

    model_type: str = "bert"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    relative_attention_num_buckets: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            kind = (int, float) if field.type is float else field.type
            if not isinstance(value, kind) or isinstance(value, bool):  # type: ignore[arg-type]
                raise InputError(f"BertConfig.{field.name} must be of type {field.type.__name__}, got {value!r}")  # type: ignore[union-attr]
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "max_position_embeddings",
        ):
            if getattr(self, name) < 1:
                raise InputError(f"BertConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.type_vocab_size < 0:
            raise InputError(f"BertConfig.type_vocab_size must be at least 0, got {self.type_vocab_size}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"BertConfig.{name} must be in [0, 1), got {getattr(self, name)}")
        if not (self.layer_norm_eps > 0 and math.isfinite(self.layer_norm_eps)):
            raise InputError(f"BertConfig.layer_norm_eps must be above 0 and finite, got {self.layer_norm_eps}")
        if not (self.initializer_range >= 0 and math.isfinite(self.initializer_range)):
            raise InputError(
                f"BertConfig.initializer_range must be at least 0 and finite, got {self.initializer_range}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"BertConfig.hidden_size must be a multiple of num_attention_heads ({self.num_attention_heads}),"
                f" got {self.hidden_size}"
            )
        if self.hidden_act not in _ACTIVATIONS:
            raise InputError(f"BertConfig.hidden_act must be one of {', '.join(_ACTIVATIONS)}, got {self.hidden_act!r}")
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise InputError(
                f"BertConfig.pad_token_id must be from 0 to {self.vocab_size - 1} (vocab_size {self.vocab_size}),"
                f" got {self.pad_token_id}"
            )
        self._check_family()

    def _check_family(self) -> None:
        try:
            family = self.family
        except WeightsError as error:
            raise InputError(f"BertConfig.{error}") from None
        for name, value in family.fixed.items():
            if getattr(self, name) != value:
                raise InputError(
                    f"BertConfig.{name} must be {value} for model_type {self.model_type}, got {getattr(self, name)}"
                )
        if self.max_tokens < 1:
            raise InputError(
                f"BertConfig.max_position_embeddings must be above {self.first_position}, the position of the first"
                f" token (pad_token_id + 1), got {self.max_position_embeddings}"
            )

    @property
    def family(self) -> "Family":
        """What the encoders of this ``model_type`` have in common."""
        from minbert.families.members import family_of

        return family_of(self.model_type)

    @property
    def first_position(self) -> int:
        """The position of a row's first token: 0, or the one after the padding's id."""
        return self.pad_token_id + 1 if self.family.positions_from_ids else 0

    @property
    def max_tokens(self) -> int:
        """The most tokens that a row may have."""
        return self.max_position_embeddings - self.first_position

    @property
    def least_parameters(self) -> int:
        """Count the parameters of the embeddings' and the layers' matrices."""
        embeddings = (self.vocab_size + self.max_position_embeddings + self.type_vocab_size) * self.hidden_size
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        return embeddings + self.num_hidden_layers * layer

    @classmethod
    def from_folder(cls, folder: str | Path) -> "BertConfig":
        """Read ``folder/config.json``; unknown keys are left out, unless they change the mathematics.

        :raises WeightsError: for a missing or broken file, or one that describes another architecture.
        """
        path = Path(folder) / "config.json"
        try:
            values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise WeightsError(f"{path}: there is no such file; a folder of weights must hold a config.json") from None
        except (ValueError, OSError) as error:
            raise WeightsError(f"{path}: can't be read as JSON ({error})") from None
        if not isinstance(values, dict):
            raise WeightsError(f"{path}: must be a JSON object, got {type(values).__name__}")
        for key, allowed in _ONLY.items():
            if values.get(key, allowed[0]) not in allowed:
                raise WeightsError(f"{path}: {key} must be {allowed[0]!r} for this encoder, got {values[key]!r}")
        from minbert.families.members import family_of

        try:
            family = family_of(values.get("model_type", "bert"))
            names = [field.name for field in dataclasses.fields(cls) if field.name != "model_type"]
            return cls(**family.read_config(values, names))
        except (InputError, WeightsError) as error:
            raise WeightsError(f"{path}: {error}") from None

    def with_dropout(self, rate: float | None) -> "BertConfig":
        """Return the same with another rate of both dropouts; None changes nothing."""
        if rate is None:
            return self
        return dataclasses.replace(self, hidden_dropout_prob=rate, attention_probs_dropout_prob=rate)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of a config.json that ``transformers`` reads."""
        family = self.family
        return {"architectures": [family.architecture], **family.write_config(dataclasses.asdict(self))}
