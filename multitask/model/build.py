"""From a configuration to a model that is ready to be trained."""

from copy import deepcopy

from minbert.files.checkpoint import has_pooler
from minbert.files.registry import resolve
from minbert.fit import check_fit
from minbert.model import BertModel
from minbert.tokenizer import BertTokenizer
from multitask.model.model import MultitaskModel, needs_pooler
from multitask.settings.config import RunConfig

__all__ = ["build_model"]


def build_model(config: RunConfig) -> tuple[MultitaskModel, BertTokenizer]:
    """Build pretrained encoders, one for each name the tasks use, and new decoders; return them with the tokenizer.

    Decoders draw their weights from torch's default generator.
    """
    folder = resolve(config.encoder.weights)
    encoders: dict[str, BertModel] = {}
    pretrained = BertModel.from_pretrained(
        folder,
        add_pooling_layer=has_pooler(folder),
        dropout=config.encoder.dropout,
        warn=any(needs_pooler(task.pooling) for task in config.tasks),
    )
    pretrained.requires_grad_(not config.encoder.freeze)
    pretrained.checkpoint_layers = config.encoder.checkpoint_layers
    for task in config.tasks:
        if task.encoder not in encoders:
            encoders[task.encoder] = deepcopy(pretrained) if encoders else pretrained
    tokenizer = BertTokenizer.from_pretrained(folder)
    check_fit(tokenizer, pretrained.config, folder)
    return MultitaskModel(encoders, config.tasks), tokenizer
