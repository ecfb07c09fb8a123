"""GLINT-RU as two ONNX graphs, for serving without torch: a whole history at once, and one item onto a state."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import DataError, GlintRUError
from ..models.auto import model_label
from ..models.item_sets import ItemFilter
from ..models.modeling_glintru import GlintRUForSequentialRecommendation
from ..models.ops_glintru import FAST_FORMS, at
from ..models.processing_glintru import GlintRUProcessor
from ..models.state_glintru import GlintRUState, StateLayout
from ..whole_files import replace_entries, unfinished_folder
from .top_k import check_top_k

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
        mask = (ids != 0)[..., None].to(encoder.embed_items.weight.dtype)
        num_items = (ids != 0).sum(1)
        old = None
        if state is not None:
            old = GlintRUState(self.layout, state[0], dict(zip(shapes, state[1:], strict=True)))
        hidden, new = encoder.through_blocks(encoder.embed_items(ids), mask, old, num_items)
        new["representation"] = at(hidden[-1], num_items - 1, None if old is None else old.representation)
        count = num_items if old is None else old.count + num_items
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
        return (*found, count, *(new[name] for name in shapes))


def _onnx_gru(model: nn.Module) -> Callable[..., Tensor]:
    """The operation `gru_states` as one ONNX node, where torch would write a loop; it cannot run in torch."""
    weights: dict[nn.Module, list[Tensor]] = {}
    for gru in model.modules():
        if isinstance(gru, nn.GRU):
            parts = (weight.detach().chunk(3) for weight in gru.all_weights[0])
            weights[gru] = [
                torch.cat((update, reset, new))[None] for reset, update, new in parts
            ]  # as ONNX orders them

    def states(gru: nn.GRU, x: Tensor, start: Tensor | None = None) -> Tensor:
        batch, length, size = x.shape
        found = torch.onnx.ops.symbolic(
            "GRU",
            (x.transpose(0, 1), *weights[gru], None, None, None if start is None else start[None]),
            {"hidden_size": size, "linear_before_reset": 1},
            dtype=x.dtype,
            shape=(length, 1, batch, size),
            version=18,
        )
        return found[:, 0].transpose(0, 1)

    return states


def _selective_scan(
    step: Tensor, u: Tensor, a: Tensor, b: Tensor, c: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The operation `selective_scan` as one node of an exported graph, which serves any length."""
    from torch._higher_order_ops.scan import scan

    def one(state: Tensor, parts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        step_t, drive_t, b_t, c_t = parts
        state = torch.exp(step_t[..., None] * a) * state + drive_t[..., None] * b_t[:, None]
        return state.clone(), (state * c_t[:, None]).sum(-1)

    if start is None:
        start = step.new_zeros(step.shape[0], *a.shape)
    last, outputs = scan(one, start.to(step.dtype), tuple(x.transpose(0, 1) for x in (step, step * u, b, c)))
    return outputs.transpose(0, 1), last


@contextlib.contextmanager
def _exporting(model: nn.Module) -> Iterator[None]:
    """Operations as ONNX has them, in the place of those that run here."""
    forms: dict[str, Callable[..., Any]] = {"gru_states": _onnx_gru(model), "selective_scan": _selective_scan}
    for name, form in forms.items():
        FAST_FORMS.setdefault(name, []).insert(0, (lambda *arguments: True, form))
    try:
        yield
    finally:
        for name in forms:
            del FAST_FORMS[name][0]


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
    if not isinstance(model, GlintRUForSequentialRecommendation):
        raise GlintRUError(f"only GLINT-RU has the states that an ONNX export needs, not {model_label(type(model))}")
    if top_k is not None:
        top_k = check_top_k(top_k, len(processor))
    _check_folder(output, overwrite)
    model = copy.deepcopy(model).float().cpu().eval()
    made = not output.exists()
    output.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is found now, not later
    try:
        with unfinished_folder(output / "onnx") as unfinished:
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
            replace_entries(output, unfinished, lambda entry: entry.name not in FILES)
    finally:
        if made:
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
        with _quiet(), torch.no_grad(), _exporting(graph.model):
            torch.onnx.export(
                graph.eval(),
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
