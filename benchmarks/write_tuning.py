"""Writes docs/tuning.md from what was tried: python benchmarks/write_tuning.py

Each line of `results/exploration/validation.jsonl` is one training with one seed: the recipe and its overrides, NDCG@10
on validation after each epoch, and for some `scratch_code`, a change that was not kept in the package.
"""

from __future__ import annotations

from pathlib import Path

from default_rule import table as default_rule
from few_to_validate import table as few_to_validate
from last_item_out import table as last_item_out
from measuring import read_lines

from modeling_glintru.comparison.tables import markdown_table, value_cell

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "benchmarks" / "results" / "exploration" / "validation.jsonl"
PAGE = ROOT / "docs" / "tuning.md"
BETWEEN = (3, 6, 9, 12)  # epochs at which lines that were stopped can be compared
HEAD = """# What was tried for the `best` recipes

Written by `benchmarks/write_tuning.py` from the files of `benchmarks/results/exploration`. One seed a line, NDCG@10 on
**validation**, past items excluded; the test split was not looked at. A line is `glintru train --recipe
RECIPE` with the overrides by `--set` (another model by `--model`), but for those that name a change which was not
kept. Repeated with another seed, values on MovieLens-100K differ by 0.001 to 0.005, so smaller differences say nothing.
Lines that were stopped by hand are compared with the others at the epoch that they reached.

What came of it: **small batches of targets** help on all three data sets, most where histories are long (a step then
sees few users, and there are many steps); **cosine scores** help where there is little data, and do not on
MovieLens-1M; **width 128** helps with them on Beauty, and 256 only with the start from co-occurrence and R-Drop
(below); **a moving average** beside the experts helps there at both widths, and not with decay 0, so it is the average
and not a wider residual path; it helps more on MovieLens-100K. **A start from co-occurrence** (`cooccurrence_start`)
brings Beauty in three epochs to where it was after six, and further in the end; on MovieLens-100K it costs. Weight
decay, dropout that is changed everywhere (less of it in the blocks alone does help at width 256, below), other decays
and shares of the average, shorter schedules, whole-item dropout, scaled embeddings,
averaged weights, decay in the linear attention and one prefix an example brought nothing that could be told from noise,
or cost; nor do two blocks on ordinary validation. Without the linear attention Beauty learns as fast and as far,
without the GRU a little less far; softmax attention in its place was no better after six epochs. Scores of item-kNN, or
counts of near pairs, added to those of the trained model bring nothing (0.0771 at best, from 0.0770, on every second
user; `neighbours.json`). `amazon-beauty-bsarec` is BSARec with its published settings, for comparison.

At width 128 Beauty seems to end there, from ids alone: SASRec with two blocks and the same start from co-occurrence
follows the same curve; items of one day shuffled, windows backwards, later items or others of the same day as targets,
biases of items, embeddings of positions, label smoothing and a softmax without the user's past items are no better or
worse. **R-Drop** (`r_drop_alpha`) adds 0.001 there on validation (three seeds; a weight of 3 is behind one of 1 until
epoch 13), of which the test shows 0.0001, too little to tell from it or from nothing (the six runs of `best` in
`benchmarks/results/quality/amazon-beauty.jsonl`). On MovieLens-100K, the smallest of the data sets, it adds 0.005 to
0.011, and less for SASRec. It takes twice the time (`benchmarks/r_drop_cost.py`).

With the start from co-occurrence and R-Drop **width 256** helps on Beauty after all: it is ahead at every epoch and
ends at 0.0793, where width 128 ends at 0.0779 (one seed). Without the GRU it ends at 0.0795 and without the temporal
convolutions at 0.0786 and 0.0798 (two seeds), which cannot be told apart, and without the GRU there is the least to
compute; so `amazon-beauty-best` has width 256 and no GRU. Three seeds of it have 0.0785 to 0.0790, those of width
128 had 0.0779 to 0.0780; the test, looked at after that, shows 0.0629 and 0.0622
(`benchmarks/results/quality/amazon-beauty.jsonl`). Width 192 without the convolutions ends at 0.0788, one block at
0.0771, dropout 0.6 at 0.0774, and a schedule of 14 epochs at 0.0783; at width 128 a temperature of 0.09, an R-Drop
weight of 2, a share 0.7 of the average and a schedule of 30 epochs were no better after eight epochs.

**SASRec trained as that recipe was** (`amazon-beauty-sasrec-like-best`: two blocks of width 256, R-Drop, the same start
and schedule, the dropouts of its own search) is ahead of it from the second epoch on (0.0722 after three, the recipe's
three seeds 0.0678 to 0.0701), ends at 0.0792 to 0.0798 and has 0.0640 to 0.0643 on test (three seeds). SASRec's
positions are not the reason (without them it has 0.0713 after three epochs) and its softmax is a part of it (with
linear attention 0.0693), but softmax attention in the block, its feed-forward network or a norm of the embeddings
change nothing there (0.0641 after two epochs, 0.0691 and 0.0691 after three). **Less dropout in the block** does: with
0.1 instead of 0.5 on what the attention gives the block has 0.0710 after three epochs, without any 0.0713, and with 0.3
also elsewhere in the blocks 0.0718 and 0.0713 (two seeds), which end at 0.0795 and 0.0796. The test, looked at after
that, shows less than it did for half of everything dropped (0.0621 and 0.0628; 0.0629, three seeds). A validation that
is like the test ([below](#a-validation-like-the-test)) was then asked which of the two it should be, and has 0.0698
with less dropout and 0.0689 as it was (one seed). Both validations say the same, and the test chooses nothing; so
`amazon-beauty-best` has less dropout since then, though the test does not show it. Curves and tests of the final runs
are in `benchmarks/results/quality/amazon-beauty.jsonl`.

Other things were tried with less dropout in the block. Softmax attention in the place of the linear one is no further
after four epochs (0.0734 and 0.0736). To drop half of the items whose values the attention sums does not help either
(0.0687 on the validation like the test, 0.0698 without). SASRec trained alike has 0.0694 there, so what it is ahead by
on test neither validation shows.

**Smoothing over near items** (`cooccurrence_smoothing`), on the other hand, learns much faster: 0.0645, 0.0718 and
0.0757 after one to three epochs, where there was 0.0587, 0.0671 and 0.0718. The end is less far ahead, at 0.0799 after
eleven of twenty epochs and 0.0796 after a schedule of twelve, for then it over-fits. Twice the weight of it is level
(0.0751 and 0.0768 after three and four epochs), more dropout costs (0.0773 after six), and twice the weight of R-Drop,
which had brought nothing before, does help: 0.0801 after nine of twelve epochs. So `amazon-beauty-best` has both and
twelve epochs; three seeds of it end at 0.0803, 0.0800 and 0.0793, and the test, looked at after that, shows 0.0643,
0.0633 and 0.0640. SASRec learns faster with the same smoothing too (0.0616 after one epoch, 0.0547 without), but ends
at 0.0769, below its 0.0796; so `amazon-beauty-sasrec-like-best` stays as it was.

**On Video Games** the same settings end at 0.1018 after twelve epochs, where width 128 with the GRU, half of everything
dropped and no R-Drop had 0.1006 to 0.1012 after twenty (three seeds). Nine epochs of them end at 0.1012, those without
R-Drop at 0.0994, and width 128 with more dropout at 0.0990; more dropout at width 256 is behind after four epochs (one
seed each). So `amazon-video-games-best` is trained as Beauty's is: 0.1017 to 0.1020 with three seeds, and 0.0895 to
0.0904 on test, where it was 0.0867 to 0.0882. (The test of the nine epochs, 0.0889, was seen before they were made
twelve; validation made the choice.) SASRec gains as much from width 256 and R-Drop, with the schedule of
`amazon-beauty-sasrec-like-best`: from 0.0991 to 0.1006 or 0.1007, and on test from 0.0863 to between 0.0899 and 0.0907
(three seeds). R-Drop twice, and fewer epochs, were not tried with it (all in
`benchmarks/results/quality/amazon-video-games.jsonl`).

What makes most of a difference is **the time of the request** (`use_time_gaps`): a tenth and more, and it comes from
the time and not from the MLP that reads it. Fed to the input, where the state of a history would depend on it, it is
learned later and ends at the same place; a scale and a shift alone bring half as much, and the time *before* an item
brings nothing.

On MovieLens-1M **the mixer of Mamba** learns faster than the experts: Mamba4Rec with two blocks is ahead of the block
with a moving average at every epoch (0.196 after three, 0.181 there) and at the end (0.219 and 0.213), and with one
block too where a residual goes around its mixer (0.181 after two epochs). Beside GLINT-RU's experts
(`state_space_share`), in the place of the moving average, it brings that to a single block: 0.209 after six epochs and
0.213 after ten, where Mamba4Rec has 0.208 and 0.214 and the moving average 0.199 and 0.207. Before the block it brings
less; a decay in the linear attention, a gated recurrence with one number a channel and a norm of the embeddings alone
bring nothing of it. First steps of 0.001 to 0.1, as in Mamba, and windows of 400 items bring nothing either.

The block with the mixer then over-fits. In a schedule of six epochs dropout 0.1 ends at 0.211, 0.2 at 0.205 and 0.3 at
0.199, and no dropout is no faster than 0.1; but with 0.1 a schedule of sixteen is at 0.210 after ten epochs and still
there after twelve. A start from co-occurrence is ahead after two epochs (0.189 and 0.187) and, in the run with such
first steps, no more after four. **R-Drop** does help: 0.216 after six of eight epochs with dropout 0.1, 0.217 after
seven with 0.2; an epoch takes twice the time. So `ml-1m-best` has it, for ten epochs, with dropout 0.2, and
`ml-1m-average` is what it was before. The state space seems to want many targets: with the 200,000 of a fifth of
MovieLens-1M's users it reaches 0.179 on validation and the moving average 0.184
([below](#the-default-rule-elsewhere)), with the 98,000 of MovieLens-100K 0.136 and 0.143 (one seed each). Two blocks
without the GRU are where Mamba4Rec is with the same training after six epochs (0.217), and reach 0.2205, it 0.2231.

**A softmax without seen items** (`seen_items_in_softmax=false`) brings most where histories are long. Nobody rates a
film twice, and yet a model of MovieLens-1M that is trained in the usual way, and 0.2095 on test with seen items left
out, is 0.1613 with them in the ranking: it spends much of its probability on them. Without them in the softmax one
block is ahead at every epoch (0.204 after three, 0.195 with them) and at the end (0.2287 to 0.2302 with three seeds;
0.2195 and 0.2178 with them, two seeds). Mamba4Rec with two blocks, trained so, ends at 0.2326 (0.2231 with them).
MovieLens-100K ends at 0.1435 and 0.1515 (two seeds; 0.1434 and 0.1404 with them), and gains more on test. On Beauty,
where histories have six items, it changed nothing. What it brings to other models is in the ablations of
[results.md](results.md): it is a matter of the loss and not of the model.

So trained, **two blocks without the temporal convolutions** are ahead of Mamba4Rec. With steps of 2,000 targets and a
schedule of eight epochs they have 0.2182 after four, two blocks without the GRU 0.2171, Mamba4Rec has 0.2149 and one
block 0.2139 (one seed each, stopped there). With the recipe's own steps they have 0.2230 and 0.2216 after five of ten
epochs (two seeds), where two blocks without the GRU have 0.2194, Mamba4Rec 0.2182 and one block 0.2160 to 0.2173, and
end at 0.2326 to 0.2349 (three seeds). So `ml-1m-best` has them since then. They take a quarter more time than
Mamba4Rec. The choice was made after five epochs, before a test of it was looked at, which shows 0.2196 to 0.2222;
Mamba4Rec has 0.2174 there, one block 0.2157 (three seeds; all in `benchmarks/results/quality/ml-1m.jsonl`).

**BERT4Rec** wants large steps. With the 500 targets of the other models, three windows of MovieLens-1M, it ranks by
popularity to the end of its 16 epochs (0.0185 on test, popularity has 0.0180); with 64 windows a step, and half the
width, it has left that after six, and is at 0.0683 on validation and rising after 15 of 60, where it was stopped. So
its row on MovieLens-1M says what small steps do to it, not what it can reach.

What is best on validation need not be best on test. On Beauty, with cosine scores, the test values of SASRec with two
blocks are 0.81 to 0.82 of its validation values, with and without times, with one block 0.79, and those of GLINT-RU
with one block 0.78 to 0.80 (the lines of `benchmarks/results/quality/amazon-beauty.jsonl`), so that SASRec, behind on
validation, was level or ahead on test. In the test a history ends in an item that no training row of that user held,
in the validation it does not. So the next table is of a validation that does the same.

## A validation like the test

Amazon Beauty, one seed, trained without the last item of each training history (`benchmarks/last_item_out.py`): NDCG@10
of the validation targets where the history ends in that item (as in the test), and of that item from those before it
(as in ordinary validation).
"""
AFTER = """
A second block of GLINT-RU brings 0.0009 here where ordinary validation shows 0.0005, and with it GLINT-RU is 0.0019
ahead of SASRec as the search found it; with the same start from co-occurrence SASRec is level. That the end was trained
on is worth 7 to 9 % to all of them, so it does not explain why they differ between validation and test. The answers of
a teacher, the model itself or its moving average, as half of the target cost 7 to 8 % of the accuracy. R-Drop brings
0.0015 here and 0.0011 in ordinary validation, smoothing over near items 0.0004, with ten epochs instead of sixteen.
"""
RULE = """## The default rule elsewhere

What `glintru train --data FILE` chooses for GLINT-RU and for SASRec, on data that the rule was not made on
(`benchmarks/default_rule.py`), one seed each, NDCG@10, past items excluded. `epochs` are those of the schedule.
"""
AFTER_RULE = """
LastFM is the file that the authors of S3-Rec published, which nobody looked at when the rule was made. The rule's
GLINT-RU has 0.0534 there on test, its SASRec 0.0444, and the log that the authors of BSARec published beside their best
model of the same file ends with 0.0435, all items ranked and past ones excluded (a standard error is about 0.006).

On a fifth of MovieLens-1M's users the rule's GLINT-RU is well above its SASRec. On a fifth of Video Games' the two are
level (a value's standard error is about 0.003), two blocks are no worse there than one, and a start from co-occurrence
alone, a shorter schedule or Beauty's dropout changes nothing; nor does that dropout on LastFM. R-Drop, which the rule
chooses for fewer than two million targets, brings 0.003 on validation and 0.010 on test on the first, 0.002 and 0.001
on the second, and on the third, where 80 users count, nothing that could be told; it takes twice the time, and up to
3.6 times where the training stopped early without it. On MovieLens-100K with the newest interactions held out 81 users
validate: their best epoch was the first, where a model knows little but which items are popular, and the rule, which
had a patience of five for all of these, stopped there. So it no longer stops early where fewer than 300 targets
validate, and is more patient with short epochs; what that is worth is simulated next. On a fifth of Beauty's users, by
time, a third of the test targets are items that no training row holds; what is left tells no two models apart (a
standard error is 0.002 on test). Seen items out of the softmax, which the rule chose only after these runs, change
nothing that could be told on a fifth of MovieLens-1M's users (0.0006 more on validation, 0.003 less on test) nor on
MovieLens-100K by time.

Smoothing over near items brings 0.0003 on validation and saves two fifths of the time on a fifth of Video Games' users,
brings 0.0010 on LastFM, and costs 0.0004 on half of the users of Toys and Games (published beside LastFM), where the
times are level; no test tells the two apart. All of Beauty's settings together (width 256 without the GRU, less
dropout, smoothing, twice the weight of R-Drop) cost 0.006 on LastFM and 0.0014 on the fifth of Video Games, which have
49,000 and 32,000 targets. **Where there are more they win**, not only on the two data sets that they were found on: on
all of Toys and Games, with 109,000 targets, they bring 0.0018 on validation and on test and save three eighths of the
time, on Sports and Outdoors (published there too), with 190,000, 0.0007 and 0.0009 and a sixth of the time (one seed
each, 14 and 9 epochs). So the rule has them for GLINT-RU on sparse data of 100,000 to 500,000 targets, with 16 and 10
epochs for these two. Where between half of Toys and Games and all of it they begin to pay was not asked, nothing larger
than Sports and Outdoors was tried, nor the time of the request beside them; where that is read, the rule is what it
was. SASRec of that width, with the rest by the rule and twenty epochs as in `amazon-beauty-sasrec-like-best`, has
0.0849 and 0.0699 on Toys and Games, in a ninth less time than GLINT-RU (0.0863 and 0.0730; one seed each, no interval).

## Stopping early where few validate

One training to the end of its schedule; some validation users are drawn 2,000 times to choose the epoch, the others say
what it is worth (`benchmarks/few_to_validate.py`). `lowest 5 %` is what one draw in twenty falls below.
"""


def table(recipe: str, lines: list[dict]) -> str:
    """One data set, best first, those stopped by hand at the end."""
    titles = ["overrides", "best", "epoch", "epochs", *(f"at epoch {epoch}" for epoch in BETWEEN)]
    rows = []
    for line in sorted(lines, key=lambda line: (line["stopped_by_hand"], -line["best"])):
        overrides = dict(override.split("=", 1) for override in line["overrides"])  # a later one wins
        names = ", ".join(f"{key} {value}" for key, value in overrides.items() if key != "early_stopping_patience")
        changed = "; ".join(filter(None, (names, line.get("scratch_code")))) or "the recipe"
        epochs = f"{len(line['validation_ndcg10'])}{', stopped' if line['stopped_by_hand'] else ''}"
        curve = line["validation_ndcg10"]
        between = [value_cell(curve[epoch - 1] if epoch <= len(curve) else None) for epoch in BETWEEN]
        rows.append([changed, value_cell(line["best"]), str(line["best_epoch"]), epochs, *between])
    return f"## {recipe}\n\n" + markdown_table(titles, rows)


def page() -> str:
    """The whole page."""
    lines = read_lines(SOURCE)
    recipes = sorted({line["recipe"] for line in lines})
    parts = [table(recipe, [line for line in lines if line["recipe"] == recipe]) for recipe in recipes]
    rule = (RULE, default_rule() + AFTER_RULE, few_to_validate())
    return "\n".join((HEAD, last_item_out() + AFTER, *rule, *parts))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")
