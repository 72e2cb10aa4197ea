"""Run the other side of benchmark.py, `transformers` and ONNX Runtime, as their documentation advises."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Each task's loss on outputs (rows, num_outputs) and labels (rows,): the same equations as in multitask.
LOSSES = {
    "sst": lambda outputs, labels: F.cross_entropy(outputs, labels),
    "para": lambda outputs, labels: F.binary_cross_entropy_with_logits(outputs.squeeze(1), labels.float()),
    "sts": lambda outputs, labels: F.mse_loss(outputs.squeeze(1), labels),
}


class Decoder(nn.Module):
    """Attention pooling with the pooler's output as query, as multitask's decoder, in torch's own parts."""

    def __init__(self, hidden: int, heads: int, outputs: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.projection = (nn.Linear(hidden, hidden) for _ in range(4))
        self.head = nn.Linear(hidden, outputs)

    def forward(self, encoded: Any, attention_mask: Tensor) -> Tensor:
        """Pool and project.

        :param encoded: the encoder's output: last_hidden_state (batch, seq, hidden), pooler_output (batch, hidden).
        :param attention_mask: (batch, seq).
        :return: (batch, outputs).
        """
        split = (len(attention_mask), -1, self.heads, self.query.out_features // self.heads)
        asked, tokens = encoded.pooler_output, encoded.last_hidden_state
        q, k, v = (
            part.view(split).transpose(1, 2) for part in (self.query(asked), self.key(tokens), self.value(tokens))
        )
        rate = 0.1 if self.training else 0.0
        pooled = F.scaled_dot_product_attention(q, k, v, attention_mask[:, None, None].bool(), dropout_p=rate)
        pooled = F.dropout(pooled.transpose(1, 2).flatten(1), 0.1, self.training)
        outputs: Tensor = self.head(self.projection(pooled))
        return outputs

    def take(self, ours: nn.Module) -> "Decoder":
        """Copy the weights of multitask's decoder."""
        places = (("pooling.attention.", ""), ("pooling.project.", "projection."), ("head.linear.", "head."))
        renamed = {
            name.replace(there, here): tensor
            for name, tensor in ours.state_dict().items()
            for there, here in places
            if name.startswith(there)
        }
        self.load_state_dict(renamed)
        return self


class Training:
    """Algorithm 1 by `transformers` and three torch.optim.AdamW: a backward pass and a step for each task in turn."""

    def __init__(self, model: nn.Module, decoders: dict[str, Decoder], *, bf16: bool) -> None:
        self.model, self.decoders, self.bf16 = model.train(), decoders, bf16
        self.optimizers = {
            name: torch.optim.AdamW([*model.parameters(), *decoder.parameters()], lr=1e-5, fused=bf16 or None)
            for name, decoder in decoders.items()
        }

    def outputs(self, task: str, batch: dict[str, Tensor]) -> Tensor:
        """Compute a task's outputs (batch, num_outputs) in float32."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            outputs: Tensor = self.decoders[task](self.model(**batch), batch["attention_mask"])
        return outputs.float()

    def round(self, batches: dict[str, tuple[dict[str, Tensor], Tensor]]) -> None:
        """Take one step on each task's batch and labels, in turn."""
        for task, (batch, labels) in batches.items():
            self.optimizers[task].zero_grad()
            LOSSES[task](self.outputs(task, batch), labels).backward()
            self.optimizers[task].step()


def list_batches(lengths: Sequence[int], grouped: bool) -> list[np.ndarray]:
    """Split indices into batches of 32, in the list's order or sorted by length."""
    order = np.argsort(lengths, kind="stable") if grouped else np.arange(len(lengths))
    return [order[start : start + 32] for start in range(0, len(order), 32)]


def transformers_list(
    model: nn.Module, tokenizer: Any, rows: Sequence[tuple[str, ...]], *, bf16: bool, grouped: bool
) -> Tensor:
    """Tokenize and encode texts: pooler outputs (rows, hidden) in the rows' order."""
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for indices in list_batches([sum(map(len, row)) for row in rows], grouped):
            texts = [list(column) for column in zip(*(rows[i] for i in indices), strict=True)]
            batch = tokenizer(*texts, padding=True, truncation=True, return_tensors="pt")
            for index, vector in zip(indices, model(**batch).pooler_output.float(), strict=True):
                found[index] = vector
    return torch.stack(found)


class Onnx:
    """B2: ONNX Runtime on the exported float32 graph, or on its dynamic int8."""

    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    def __call__(self, tokenizer: Any, rows: Sequence[tuple[str, ...]], *, grouped: bool) -> Tensor:
        """Tokenize and encode texts, as transformers_list does."""
        found: list[np.ndarray] = [np.empty(0)] * len(rows)
        for indices in list_batches([sum(map(len, row)) for row in rows], grouped):
            texts = [list(column) for column in zip(*(rows[i] for i in indices), strict=True)]
            batch = tokenizer(*texts, padding=True, truncation=True, return_tensors="np")
            inputs = {part.name: batch[part.name].astype(np.int64) for part in self.session.get_inputs()}
            for index, vector in zip(indices, self.session.run(["pooler_output"], inputs)[0], strict=True):
                found[index] = vector
        return torch.from_numpy(np.stack(found))


def export_onnx(model: nn.Module, tokenizer: Any, folder: Path) -> tuple[Path, Path]:
    """Write the float32 graph and its dynamic int8 into ``folder``, and give both files."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    class PoolerOutput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = model

        def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
            result: Tensor = self.bert(input_ids, attention_mask, token_type_ids).pooler_output
            return result

    names = ["input_ids", "attention_mask", "token_type_ids"]
    batch = tokenizer(["one text", "another, longer text"], padding=True, return_tensors="pt")
    float32, int8 = folder / "float32.onnx", folder / "int8.onnx"
    torch.onnx.export(
        PoolerOutput().eval(),
        tuple(batch[name] for name in names),
        str(float32),
        input_names=names,
        output_names=["pooler_output"],
        dynamic_axes={name: {0: "batch", 1: "seq"} for name in names},
        dynamo=False,
    )
    quantize_dynamic(float32, int8, weight_type=QuantType.QInt8)
    return float32, int8
