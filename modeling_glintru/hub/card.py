"""The model card: what a finished run says of itself, from its own files, in a template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..data.example_data import LICENCE_NOTICE
from ..models.auto import MODELS, OUR_MODELS, model_label
from ..models.processing_glintru import GlintRUProcessor
from ..models.untrusted_text import parse_json, parse_yaml
from .card_text import CARD_FILE, PLACEHOLDER, sign
from .endpoint import HANDLER_FILE

__all__ = ["write_card"]

TEMPLATE = Path(__file__).with_name("card_template.md")
LICENCES = {
    "demo": "Synthetic, made by the package, under its licence (Apache-2.0).",
    "ml-100k": LICENCE_NOTICE,
}
SPLITS = {
    "leave_one_out": "leave-one-out: the last item of each user is the target of the test, the one before it that of "
    "the validation, the rest is learnt from",
    "temporal": "temporal: the newest {test:.0%} of all interactions are the test, the {validation:.0%} before them "
    "the validation",
    "user": "by users: {test:.0%} of the users are the test and {validation:.0%} the validation, and nothing of theirs "
    "is learnt from",
    "given": "given with the data, as files for training, validation and test",
    "basket": "leave-one-out by baskets: all items of the last time of each user are targets of the test, those of the "
    "time before it of the validation, the rest is learnt from",
}


def write_card(
    folder: Path, name: str, references: Mapping[str, str] | None = None, weakness: str | None = None
) -> None:
    """Writes `README.md` into the model folder of a finished run, from its config, recipe, metrics and vocabulary.

    The place of the repository's name is held open until a push.

    Args:
        folder: With `config.json`, `recipe.yaml`, `metrics.json` and the processor.
        name: Of the model, without an owner.
        references: Models without training in `metrics.json`, by name, to what people read for them.
        weakness: A sentence for people where the model does not surely beat all of these.
    """
    config = parse_json((folder / "config.json").read_text(encoding="utf-8"))
    metrics = parse_json((folder / "metrics.json").read_text(encoding="utf-8"))
    recipe_text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    recipe = parse_yaml(recipe_text)
    processor = GlintRUProcessor.from_pretrained(folder)
    label = model_label(MODELS[config["model_type"]])
    name = re.sub(r"[^\w.-]+", "-", name)
    repo = PLACEHOLDER + name
    streams = config.get("model_type") == "glintru"
    text = Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        name=name,
        what=_what(label, config),
        recommend=_recommend(repo, processor, "auto_map" in config),
        stream=_stream(processor) if streams else "",
        endpoint=_endpoint(processor) if (folder / HANDLER_FILE).exists() else "",
        num_items=f"{len(processor):,}",
        max_length=processor.max_length,
        repo=repo,
        data=_data(metrics["data"], recipe),
        results=_results(label, metrics, recipe, references or {}, weakness),
        training=_training(metrics),
        curves="\n![Learning curves](learning_curves.png)\n" if (folder / "learning_curves.png").exists() else "",
        recipe=recipe_text.strip(),
    )
    header = _header(name, label, metrics, recipe)
    (folder / CARD_FILE).write_text(sign(f"---\n{header}\n---\n\n{text}"), encoding="utf-8")


def _endpoint(processor: GlintRUProcessor) -> str:
    request = json.dumps({"inputs": list(processor.item_ids[:3]), "parameters": {"top_k": 5}}, ensure_ascii=False)
    return f"""
## Serve

An Inference Endpoint of this repository runs its `{HANDLER_FILE}`, which also says how it keeps states for users:

```json
{request}
```
"""


def _header(name: str, label: str, metrics: dict[str, Any], recipe: dict[str, Any]) -> str:
    source = str(metrics["data"]["source"])
    on_hub = source.count("/") == 1
    main = metrics.get("main", "test")
    results = [
        EvalResult(
            task_type="sequential-recommendation",
            task_name="Sequential recommendation",
            dataset_type=source,
            dataset_name=source,
            dataset_split="test",
            metric_type=key,
            metric_name=key.upper(),
            metric_value=round(entry["value"], 4),
            metric_args={
                "protocol": f"{recipe['data']['split']}, all items ranked, past items "
                + ("ranked too" if main.endswith("_with_history") else "excluded")
                + (", time of the request given" if recipe["model"].get("use_time_gaps") else ""),
                "low": round(entry["low"], 4),
                "high": round(entry["high"], 4),
                "confidence": 0.95,
            },
        )
        for key, entry in metrics[main].items()
        if key.startswith(("ndcg@", "hr@", "mrr@"))
    ]
    data = ModelCardData(
        library_name="transformers",
        tags=["recommendation", "sequential-recommendation", label.lower().replace(" ", "-")],
        datasets=[source] if on_hub else None,
        model_name=name,
        eval_results=results,
    )
    return data.to_yaml().strip()


def _what(label: str, config: dict[str, Any]) -> str:
    size = f"{label}, width {config['hidden_size']}"
    if layers := config.get("num_hidden_layers"):
        size += f", {layers} {'block' if layers == 1 else 'blocks'}"
    if config["model_type"] != "glintru":
        kind = MODELS[config["model_type"]]
        file = kind.__module__.rpartition(".")[2]
        if f"{file}.{kind.__name__}" not in OUR_MODELS:
            return f"The model is {size}; its code is in `{file}.py`."
        return f"The model is {size}, one of those that the package `glintru` compares GLINT-RU with."
    return (
        f"The model is {size}: a gated recurrent unit and a linear attention side by side "
        "([arXiv 2406.10244](https://arxiv.org/abs/2406.10244), KDD 2025)."
    )


def _recommend(repo: str, processor: GlintRUProcessor, remote: bool) -> str:
    history = list(processor.item_ids[:3])
    served = "model(**inputs).logits  # past items may be recommended again"
    if not processor.recommend_seen:
        served = 'model(**inputs, exclude_item_ids=inputs["input_ids"]).logits  # what is in the history stays out'
    if not remote:
        return (
            "from modeling_glintru import Recommender  # pip install glintru\n\n"
            f'recommender = Recommender.from_pretrained("{repo}")\n'
            f"print(recommender.recommend([{history!r}], top_k=5)[0].items)"
        )
    return (
        "from transformers import pipeline\n\n"
        f'name = "{repo}"\n'
        'recommend = pipeline("sequential-recommendation", model=name, trust_remote_code=True)\n'
        f'print(recommend({{"history": {history!r}}}, top_k=5)["items"])\n'
        "```\n\nThe same with the model itself:\n\n```python\n"
        "from transformers import AutoModel, AutoProcessor\n\n"
        "model = AutoModel.from_pretrained(name, trust_remote_code=True)\n"
        "processor = AutoProcessor.from_pretrained(name, trust_remote_code=True)\n\n"
        f"inputs = processor([{history!r}])\n"
        f"scores = {served}\n"
        "print(processor.decode_top_k(scores, top_k=5))"
    )


def _stream(processor: GlintRUProcessor) -> str:
    new = processor.item_ids[min(3, len(processor) - 1)]
    return (
        "\n## Stream\n\nA user's history is a state of fixed size that goes on with each new item, exactly as if the "
        "whole history were read again:\n\n```python\n"
        "import torch\n\n"
        "with torch.inference_mode():\n"
        "    state = model(**inputs, use_cache=True).state\n"
        "    stored = state.to_bytes()  # one blob a user, for any store\n"
        "    state = model.state_class.from_bytes(stored)\n"
        f'    output = model(processor([[{new!r}]])["input_ids"], state=state)\n'
        "print(processor.decode_top_k(output.logits, top_k=5))  # and output.state goes on\n```\n"
    )


def _data(data: dict[str, Any], recipe: dict[str, Any]) -> str:
    source = str(data["source"])
    lines = [
        f"`{source}`: {data['interactions']:,} interactions of {data['users']:,} users with {data['items']:,} items, "
        f"median history {data['median_history_length']:g}."
    ]
    if any(data["dropped"].values()):
        left_out = ", ".join(f"{count:,} {what}" for what, count in data["dropped"].items())
        lines.append(f"Left out by the filters of the recipe: {left_out}.")
    name = "basket" if recipe["data"]["hold_out"] == "basket" else data["split"]
    split = SPLITS[name].format(test=recipe["data"]["test_fraction"], validation=recipe["data"]["validation_fraction"])
    lines.append(
        f"Split {split}. {data['train_interactions']:,} interactions were learnt from; {data['validation_users']:,} "
        f"users were evaluated in the validation and {data['test_users']:,} in the test."
    )
    lines.append(f"Licence: {LICENCES.get(source, 'not known to the package; ask whoever published the data.')}")
    return "\n\n".join(lines)


def _results(
    label: str, metrics: dict[str, Any], recipe: dict[str, Any], references: Mapping[str, str], weakness: str | None
) -> str:
    ranked = metrics["data"]["items"]
    users, targets = metrics["num_test_users"], metrics.get("num_test_targets", metrics["num_test_users"])
    counted = f"{users:,} users" + (f" with {targets:,} targets" if targets != users else "")
    resamples = recipe["evaluation"]["num_bootstrap"]
    blocks = [
        f"On the test split ({counted}), with 95 % bootstrap intervals over users "
        f"({resamples:,} resamples). An item counts as behind the target only where its score is "
        "lower: ties count against the model. The epoch was chosen on the validation split. The first table is the "
        "ranking that is served."
    ]
    if metrics.get("recurring_targets"):
        blocks.append(
            f"{metrics['recurring_targets']:.1%} of the test targets stand in the user's history before. Where past "
            "items are left out, such a target is a miss."
        )
    if weakness:
        blocks.append(f"**{weakness}**")
    if refit := metrics.get("refit"):
        epochs = f"{refit['epochs']} epoch{'s' if refit['epochs'] != 1 else ''}"
        blocks.append(
            "These figures were measured on a model trained without the held-out items; the weights here were then "
            f"trained once more on everything ({refit['num_interactions']:,} interactions), {epochs}."
        )
    if recipe["model"].get("use_time_gaps"):
        blocks.append(
            f"{label} was given the time from the last item to the request, in seconds where the data has dates or "
            "Unix times, else in the unit of its time column: in use "
            '`{"history": [...], "time_gap": ...}`. Without it it answers from the items alone.'
        )
    rows = {label: metrics} | {title: metrics[key] for key, title in references.items() if key in metrics}
    for column in (key for key in metrics if key == "test" or key.startswith("test_")):
        blocks.append(f"{_protocol(column, ranked)}\n\n{_table(rows, column)}")
    return "\n\n".join(blocks)


def _protocol(column: str, items: int) -> str:
    seen = column.endswith("_with_history")
    protocol = column.removeprefix("test").removesuffix("_with_history").removeprefix("_")
    past = (
        "the user's past items may be in the ranking" if seen else "the user's past items are left out of the ranking"
    )
    if not protocol:
        return f"All {items:,} items ranked; {past}:"
    how = "by their popularity" if protocol.startswith("pop") else "uniformly"
    return f"{protocol[3:]} items drawn {how} ranked, not comparable with the above; {past}:"


def _table(rows: dict[str, Any], column: str) -> str:
    shown = [key for key in next(iter(rows.values()))[column] if key.startswith(("ndcg@", "hr@", "mrr@"))]
    lines = ["| model | " + " | ".join(key.upper() for key in shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for name, tables in rows.items():
        cells = [tables[column][key] for key in shown]
        values = " | ".join(f"{c['value']:.4f} [{c['low']:.4f}, {c['high']:.4f}]" for c in cells)
        lines.append(f"| {name} | {values} |")
    return "\n".join(lines)


def _training(metrics: dict[str, Any]) -> str:
    run, versions = metrics["training"], metrics["versions"]
    machine = run.get("processor") or run["device"]
    threads = f", {run['threads']} thread{'s' if run['threads'] != 1 else ''}" if run["device"] == "cpu" else ""
    words = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{run['num_parameters']:,} parameters; {run['epochs']:.4g} epochs, {run['steps']:,} steps, "
        f"epoch {run['best_epoch']:g} kept; {run['seconds']:,.0f} seconds on {machine}{threads}; "
        f"seed {metrics['seed']}.{_extra(metrics)}\n\nVersions: {words}."
    )


def _extra(metrics: dict[str, Any]) -> str:
    """A sentence on the time limit and on the refit, where they are."""
    stopped, refit = metrics.get("stopped"), metrics.get("refit")
    if refit is not None:
        return f" Then anew on everything, {refit['steps']:,} steps in {refit['seconds']:,.0f} seconds."
    if stopped is None:
        return ""
    where = f"after {stopped['epochs']:.3g} of {stopped['of']} epochs"
    if stopped["during"] == "refit":
        return f" A training on everything was stopped early by --max_minutes {where}: the weights are those before it."
    return f" Stopped early by --max_minutes {where}."
