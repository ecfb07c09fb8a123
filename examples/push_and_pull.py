"""Share a model folder on the Hub, and use it as a stranger would. Run: ... push_and_pull.py FOLDER OWNER/NAME

Log in first, with `hf auth login` or the environment variable HF_TOKEN.
"""

from __future__ import annotations

import argparse

from transformers import AutoModel, AutoProcessor, pipeline

from modeling_glintru.hub import plan_push, push_folder
from modeling_glintru.serving import StreamingRecommender

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("folder", help="model folder, as `glintru train` leaves it")
parser.add_argument("repo", help="repository on the Hub, OWNER/NAME")
parser.add_argument("--public", action="store_true", help="a new repository is private otherwise")
args = parser.parse_args()

# What leaves this machine: weights, vocabulary, code, card, metrics and recipe. No user, no history, no pickle.
print(plan_push(args.folder, args.repo).describe())
pushed = push_folder(args.folder, args.repo, private=not args.public)
print(f"{pushed.url} at {pushed.commit[:7]}, changed: {', '.join(pushed.changed) or 'nothing'}")

# These lines need no installed package of ours: the code comes from the repository, so look at it before you trust it.
recommend = pipeline("sequential-recommendation", model=args.repo, revision=pushed.commit, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(args.repo, revision=pushed.commit, trust_remote_code=True)
model = AutoModel.from_pretrained(args.repo, revision=pushed.commit, trust_remote_code=True)
history = list(processor.item_ids[:3])
best = recommend({"history": history}, top_k=3)["items"]
print(f"after {', '.join(map(str, history))}: {', '.join(str(item['item_id']) for item in best)}")

# With the package: the same model, click by click.
with StreamingRecommender(model, processor) as recommender:
    for item in history:
        recommender.observe("somebody", item)
    clicked = recommender.recommend("somebody", top_k=3).items
print(f"the same, click by click: {', '.join(str(item['item_id']) for item in clicked)}")
