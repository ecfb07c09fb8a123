"""GLINT-RU as two ONNX graphs, for serving without torch: a whole history at once, and one item onto a state."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError, GlintRUError
from ..models.auto import model_label
from ..models.item_sets_glintru import ItemFilter
from ..models.layers_glintru import Border
from ..models.modeling_glintru import GlintRUForSequentialRecommendation
from ..models.processing_glintru import GlintRUProcessor
from ..models.state_glintru import StateLayout
from .top_k import check_k

__all__ = ["ADVICE", "export_onnx"]

ADVICE = "install the packages of the extra: pip install 'glintru[export]'"
HISTORY, STEP, ITEMS, ABOUT = "history.onnx", "step.onnx", "items.json", "onnx.json"
FILES = (HISTORY, STEP, ITEMS, ABOUT, f"{HISTORY}.data", f"{STEP}.data")
TOLERANCE = 1e-4
LARGEST = 2**30  # bytes of weights inside a .onnx file, which may not reach 2 GiB; more lie beside it


class _Graph(nn.Module):
    """Plain torch operations from item indices and a state to scores and the next state.

    Args:
        model: In float32 on the CPU, in eval mode.
        top_k: How many items to return; `None` for the scores of all.
        fresh: Whether histories begin here: no state goes in, and the indices are (batch, length) instead of (batch,).
    """

    def __init__(self, model: GlintRUForSequentialRecommendation, top_k: int | None, fresh: bool) -> None:
        super().__init__()
        self.model, self.top_k, self.fresh = model, top_k, fresh
        self.layout = StateLayout.of(model.config)
        # Cosines want item vectors of length 1: computed here and not on every call.
        self.vectors = nn.Buffer(model.item_vectors().detach()) if model.config.normalize_scores else None

    def forward(self, input_ids: Tensor, exclude: Tensor | None = None, state: Any = None) -> tuple[Tensor, ...]:
        """
        Args:
            input_ids: int64, items before padding (0) in each row.
            exclude: (batch, any) int64, padded with 0; with `top_k` only.
            state: The count and the tensors of `layout.shapes()`, in that order.

        Returns:
            Scores (batch, vocab_size), or items and their scores (batch, top_k); then the new state.
        """
        ids = input_ids if self.fresh else input_ids[:, None]
        encoder, shapes = self.model.model, self.layout.shapes()
        x = encoder.block_input(encoder.embed_items(ids))
        if state is None:
            count = torch.zeros_like(ids[:, 0])
            old = {name: x.new_zeros(x.shape[0], *shape) for name, shape in shapes.items()}
        else:
            count, old = state[0], dict(zip(shapes, state[1:], strict=True))
        mask = (ids != 0)[..., None].to(x.dtype)
        has_before = torch.cat(((count > 0)[:, None, None].to(x.dtype), mask[:, :-1]), dim=1)
        num_items = (ids != 0).sum(1)
        border = Border(num_items, has_before, count, self.fresh)
        new: dict[str, Tensor] = {}
        for index, layer in enumerate(encoder.layers):
            names = self.layout.layer_shapes()
            x, memory = layer(x, mask, {name: old[f"layers.{index}.{name}"] for name in names}, border)
            new |= {f"layers.{index}.{name}": memory[name] for name in names}
        new["representation"] = border.last(old["representation"], x)
        scores = nn.functional.linear(
            self.model.query_vectors(new["representation"]),
            self.model.item_vectors() if self.vectors is None else self.vectors,
        )
        padding = torch.arange(scores.shape[1]) == 0
        scores = scores.masked_fill(padding, -torch.inf)
        found: tuple[Tensor, ...] = (scores,)
        if self.top_k is not None:
            assert exclude is not None
            best, items = scores.scatter(1, exclude, -torch.inf).topk(self.top_k, dim=1)
            found = (items, best)
        return (*found, count + num_items, *(new[name] for name in shapes))


class _GRU(nn.Module):
    """Stands for an `nn.GRU` without biases in an export: one ONNX node, where torch would write a loop.

    Args:
        gru: With one layer, batch first.
    """

    input: Tensor
    recurrent: Tensor

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.weight_x, self.weight_h = gru.all_weights[0]
        for name, weight in (("input", self.weight_x), ("recurrent", self.weight_h)):
            reset, update, new = weight.detach().chunk(3)  # ONNX wants the update gate first
            self.register_buffer(name, torch.cat((update, reset, new))[None])

    @property
    def all_weights(self) -> list[list[Tensor]]:
        """As of `nn.GRU`."""
        return [[self.weight_x, self.weight_h]]

    def forward(self, x: Tensor, start: Tensor | None = None) -> tuple[Tensor, None]:
        """The states (batch, length, size) of inputs of that shape, from `start` (1, batch, size)."""
        batch, length, size = x.shape
        states = torch.onnx.ops.symbolic(
            "GRU",
            (x.transpose(0, 1), self.input, self.recurrent, None, None, start),
            {"hidden_size": size, "linear_before_reset": 1},
            dtype=x.dtype,
            shape=(length, 1, batch, size),
            version=18,
        )
        return states[:, 0].transpose(0, 1), None


def _for_export(graph: _Graph) -> _Graph:
    """The graph with recurrences that the exporter understands; they cannot run in torch."""
    graph = copy.deepcopy(graph)
    for layer in graph.model.model.layers:
        if layer.recurrence is not None:
            layer.recurrence.gru = _GRU(layer.recurrence.gru)
    return graph.eval()


def export_onnx(
    model: Any, processor: GlintRUProcessor, output: Path, *, top_k: int | None = None, overwrite: bool = False
) -> dict[str, float]:
    """Writes `history.onnx`, `step.onnx`, `items.json` and `onnx.json`, after onnxruntime has given torch's numbers.

    Args:
        model: A GLINT-RU model.
        processor: Its vocabulary.
        output: A folder; made where it is missing.
        top_k: Items that the graphs return, with an input for items to leave out; `None` for the scores of all items.
        overwrite: Whether the files of an earlier export may be replaced.

    Returns:
        For each graph the largest difference from torch on random histories.

    Raises:
        GlintRUError: A package is missing, another model, `top_k` out of range, the export fails, or its numbers differ
            by more than 1e-4.
        DataError: `output` is a file, or holds an earlier export.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise GlintRUError(f"ONNX needs the package {error.name}: {ADVICE}") from error
    if not isinstance(model, GlintRUForSequentialRecommendation) or model.config.padding_mode == "official":
        ours = isinstance(model, GlintRUForSequentialRecommendation)
        what = "padding_mode 'official'" if ours else model_label(type(model))
        raise GlintRUError(f"only GLINT-RU has the states that an ONNX export needs, not {what}")
    if top_k is not None:
        top_k = check_k(top_k, len(processor), "top_k")
    _check_folder(output, overwrite)
    model = copy.deepcopy(model).float().cpu().eval()
    output.mkdir(parents=True, exist_ok=True)
    unfinished = output / f".{os.getpid()}.partial"
    unfinished.mkdir()
    try:
        differences = {}
        for name, fresh in ((HISTORY, True), (STEP, False)):
            graph = _Graph(model, top_k, fresh)
            _export(graph, unfinished / name)
            differences[name] = _check(graph, unfinished / name, processor.max_length)
        titles = processor.item_titles
        popular = ItemFilter.of(processor, None, None).most_popular(len(processor))
        items = {
            "item_ids": list(processor.item_ids),
            "titles": None if titles is None else list(titles),
            "popular": popular.tolist(),
        }
        (unfinished / ITEMS).write_text(json.dumps(items), encoding="utf-8")
        about = {
            "max_length": processor.max_length,
            "top_k": top_k,
            "recommend_seen": processor.recommend_seen,
            "state": {name: list(shape) for name, shape in StateLayout.of(model.config).shapes().items()},
            "fingerprint": model.model.fingerprint(),
            "versions": {name.__name__: name.__version__ for name in (torch, onnx, onnxruntime, onnxscript)},
        }
        (unfinished / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        for name in FILES:
            (output / name).unlink(missing_ok=True)
        for file in unfinished.iterdir():
            file.rename(output / file.name)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        with contextlib.suppress(OSError):
            output.rmdir()  # only where nothing came into it
    return differences


def _check_folder(output: Path, overwrite: bool) -> None:
    if output.exists() and not output.is_dir():
        raise DataError(f"--output must be a folder, but {output} is a file")
    there = [name for name in FILES if (output / name).exists()]
    if there and not overwrite:
        raise DataError(f"{output} already holds {there[0]}; choose another --output or add --overwrite")


def _example(graph: _Graph, users: int, length: int, seed: int) -> dict[str, Any]:
    """Random inputs: histories of all lengths, none at all too; states as random histories leave them."""
    random = torch.Generator().manual_seed(seed)
    most = graph.model.config.vocab_size

    def histories() -> Tensor:
        ids = torch.randint(1, most, (users, length), generator=random)
        lengths = torch.randint(0, length + 1, (users, 1), generator=random)
        lengths[0] = length
        return ids * (torch.arange(length) < lengths)

    inputs: dict[str, Any] = {"input_ids": histories()}
    if graph.top_k is not None:
        inputs["exclude"] = torch.randint(0, most, (users, 3), generator=random)
    if not graph.fresh:
        before = _Graph(graph.model, None, fresh=True)
        with torch.no_grad():
            inputs["state"] = before(histories())[1:]
        inputs["input_ids"] = torch.randint(0, most, (users,), generator=random)
    return inputs


def _names(graph: _Graph) -> tuple[list[str], list[str]]:
    """Of all inputs and of all outputs, in order."""
    state = ["count", *graph.layout.shapes()]
    inputs = ["input_ids" if graph.fresh else "item_ids", *(["exclude"] if graph.top_k is not None else [])]
    outputs = ["scores"] if graph.top_k is None else ["items", "scores"]
    return inputs + ([] if graph.fresh else state), outputs + [f"next.{name}" for name in state]


def _export(graph: _Graph, file: Path) -> None:
    example = _example(graph, users=3, length=5, seed=0)
    any_size = torch.export.Dim.DYNAMIC
    shapes: dict[str, Any] = {"input_ids": {0: any_size, 1: any_size} if graph.fresh else {0: any_size}}
    if "exclude" in example:
        shapes["exclude"] = {0: any_size, 1: any_size}
    if "state" in example:
        shapes["state"] = tuple({0: any_size} for _ in example["state"])
    inputs, outputs = _names(graph)
    weights = sum(tensor.nbytes for tensor in graph.state_dict().values())
    try:
        with _quiet(), torch.no_grad():
            torch.onnx.export(
                _for_export(graph),
                (),
                str(file),
                kwargs=example,
                input_names=inputs,
                output_names=outputs,
                dynamic_shapes=shapes,
                dynamo=True,
                external_data=weights > LARGEST,
                verbose=False,
            )
    except Exception as error:  # of many kinds, from three packages
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GlintRUError(f"{file.name} could not be exported by torch {torch.__version__}: {text}") from error
    _tidy(file)


def _tidy(file: Path) -> None:
    """Names the free sizes, and drops the exporter's notes: lines of source code and paths of this machine."""
    import onnx

    proto = onnx.load(str(file), load_external_data=False)
    proto.ClearField("metadata_props")
    graphs = list(_graphs(proto.graph))
    for graph in graphs:
        graph.ClearField("value_info")
        graph.ClearField("metadata_props")
        for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
            part.ClearField("doc_string")
            part.ClearField("metadata_props")
    read = {name for graph in graphs for node in graph.node for name in node.input}
    read |= {value.name for graph in graphs for value in graph.output}
    for unused in [x for x in proto.graph.initializer if x.name not in read]:  # onnxruntime would warn of each
        proto.graph.initializer.remove(unused)
    names: dict[str, str] = {}
    for value in (*proto.graph.input, *proto.graph.output):
        free = ("batch", "excluded" if value.name == "exclude" else "length")
        for dim, name in zip(value.type.tensor_type.shape.dim, free, strict=False):
            if dim.dim_param:
                dim.dim_param = names.setdefault(dim.dim_param, name)
    onnx.save(proto, str(file))


def _graphs(graph: Any) -> Iterator[Any]:
    """An ONNX graph and those inside its nodes, the bodies of scans."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from _graphs(attribute.g)


def _check(graph: _Graph, file: Path, max_length: int) -> float:
    """The largest difference between onnxruntime and torch on random histories.

    Raises:
        GlintRUError: It is above 1e-4.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    largest = 0.0
    for seed, (users, length) in enumerate(((1, 1), (2, 3), (5, min(64, max_length)), (4, max_length), (3, 130))):
        example = _example(graph, users, length, seed)
        with torch.no_grad():
            expected = graph(**example)
        flat = [*(example[name] for name in ("input_ids", "exclude") if name in example), *example.get("state", ())]
        feed = {name: tensor.numpy() for name, tensor in zip(_names(graph)[0], flat, strict=True)}
        found = session.run(None, feed)
        for name, ours, theirs in zip(_names(graph)[1], found, expected, strict=True):
            if name != "items":  # two items may change places where their scores differ by less than rounding
                largest = max(largest, _difference(ours, theirs.numpy()))
    if not largest <= TOLERANCE:
        raise GlintRUError(f"{file.name} differs from torch by {largest:.1e}, more than {TOLERANCE:g}: it is not kept")
    return largest


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    same = np.equal(ours, theirs)  # infinities too
    return float(np.abs(np.where(same, 0, ours) - np.where(same, 0, theirs)).max(initial=0))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on packages that are not there and on its own future."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
