"""Every kind of source gives the same table."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from datetime import date, datetime, timezone
from pathlib import Path

import datasets
import pandas as pd
import polars as pl
import pytest

from modeling_glintru.data import interactions, readers
from modeling_glintru.data.interactions import read_interactions
from modeling_glintru.errors import DataError

ROWS = [("u2", 7, 30), ("u1", 5, 10), ("u1", 6, 10), ("u2", 5, 20)]
FRAME = pl.DataFrame(
    {
        "rating": [1.0, 2.0, 3.0, 4.0],
        "userId": [row[0] for row in ROWS],
        "movieId": [row[1] for row in ROWS],
        "ts": [row[2] for row in ROWS],
    }
)
EXPECTED = pl.DataFrame(ROWS, schema={"user_id": pl.String, "item_id": pl.Int64, "timestamp": pl.Int64}, orient="row")


def write(kind: str, folder: Path) -> Path:
    path = folder / f"table{kind}"
    text = FRAME.write_csv(separator="," if ".csv" in kind else "\t")
    if kind == ".parquet":
        FRAME.write_parquet(path)
    elif kind == ".inter":
        path.write_text(
            text.replace("rating\tuserId\tmovieId\tts", "rating:float\tuserId:token\tmovieId:token\tts:float")
        )
    elif ".csv" in kind or ".tsv" in kind:
        path.write_bytes(gzip.compress(text.encode()) if kind.endswith(".gz") else text.encode())
    else:
        lines = "".join(json.dumps(row) + "\n" for row in FRAME.to_dicts()).encode()
        path.write_bytes(gzip.compress(lines) if kind.endswith(".gz") else lines)
    return path


KINDS = [".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json", ".inter", ".csv.gz", ".tsv.gz", ".jsonl.gz"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_text", [True, False])
def test_files(kind: str, as_text: bool, tmp_path: Path) -> None:
    path = write(kind, tmp_path)
    read = read_interactions(str(path) if as_text else path)
    assert read.frame.equals(EXPECTED)
    assert read.frame.schema == EXPECTED.schema
    assert read.columns == {"user": "userId", "item": "movieId", "time": "ts"}
    assert read.source == f"table{kind}"


@pytest.mark.parametrize(
    "source",
    [
        FRAME,
        FRAME.lazy(),
        FRAME.to_arrow(),
        FRAME.to_pandas(),
        FRAME.to_pandas().set_index(pd.Index([9, 9, 3, 1])),
        FRAME.to_pandas().astype({"userId": "object", "movieId": "Int32"}),
        FRAME.to_pandas().astype({"userId": "category"}),
        FRAME.with_columns(pl.col("userId").cast(pl.Categorical), pl.col("movieId").cast(pl.UInt16)),
        datasets.Dataset(FRAME.to_arrow()),
        datasets.Dataset(FRAME[::-1].to_arrow()).select([3, 2, 1, 0]),
        datasets.DatasetDict({"train": datasets.Dataset(FRAME.to_arrow())}),
        datasets.Dataset(FRAME.to_arrow()).to_iterable_dataset(),
    ],
    ids=lambda source: type(source).__name__,
)
def test_frames_and_data_sets(source: object) -> None:
    read = read_interactions(source)
    assert read.frame.equals(EXPECTED)
    assert read.frame.schema == EXPECTED.schema


def test_describe_says_what_was_recognised() -> None:
    text = read_interactions(FRAME).describe()
    assert "user = 'userId', item = 'movieId', time = 'ts'" in text
    assert "4 interactions, 2 users, 3 items" in text


def test_named_columns() -> None:
    frame = FRAME.rename({"userId": "who", "movieId": "what", "ts": "when"})
    read = read_interactions(frame, user_column="who", item_column="what", time_column="when")
    assert read.frame.equals(EXPECTED)


def test_leading_zeros_and_long_numbers_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user_id,item_id,timestamp\n1,007,5\n2,108775015,6\n")
    read = read_interactions(path)
    assert read.frame["item_id"].to_list() == ["007", "108775015"]
    assert read.frame["user_id"].to_list() == [1, 2]
    path.write_text("user_id,item_id,timestamp\n1,99999999999999999999,5\n2,1,6\n")
    assert read_interactions(path).frame["item_id"].to_list() == ["99999999999999999999", "1"]


def test_text_ids_that_are_partly_numbers_are_all_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user_id,item_id,timestamp\n1,5,5\n2,B00,6\nNN,-0,7\n")
    frame = read_interactions(path).frame
    assert frame["item_id"].to_list() == ["5", "B00", "-0"]
    assert frame["user_id"].to_list() == ["1", "2", "NN"]


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_csv_with_another_separator_and_a_byte_order_mark(separator: str, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + FRAME.write_csv(separator=separator).encode())
    assert read_interactions(path).frame.equals(EXPECTED)


MICROSECONDS = 1_717_178_400_000_000  # 2024-05-31 18:00 UTC


@pytest.mark.parametrize(
    "times",
    [
        pl.Series(["2024-05-31T18:00:00", "2024-05-31T18:00:01"]),
        pl.Series(["2024-05-31 18:00:00", "2024-05-31 18:00:01"]),
        pl.Series(["2024-05-31T18:00:00Z", "2024-05-31T20:00:01+02:00"]),
        pl.Series([datetime(2024, 5, 31, 18), datetime(2024, 5, 31, 18, 0, 1)]),
        pl.Series([datetime(2024, 5, 31, 18), datetime(2024, 5, 31, 18, 0, 1)], dtype=pl.Datetime("ns")),
        pl.Series([datetime(2024, 5, 31, 18), datetime(2024, 5, 31, 18, 0, 1)], dtype=pl.Datetime("ms")),
        pl.Series(
            [datetime(2024, 5, 31, 18, tzinfo=timezone.utc), datetime(2024, 5, 31, 18, 0, 1, tzinfo=timezone.utc)]
        ).dt.convert_time_zone("Europe/Berlin"),
    ],
    ids=str,
)
def test_dates_become_microseconds(times: pl.Series) -> None:
    frame = read_interactions(pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "time": times})).frame
    assert frame["timestamp"].to_list() == [MICROSECONDS, MICROSECONDS + 1_000_000]
    assert frame["timestamp"].dtype == pl.Int64


@pytest.mark.parametrize("day", [date(2024, 5, 31), "2024-05-31"])
def test_days_become_microseconds(day: object) -> None:
    frame = read_interactions(pl.DataFrame({"user": ["a", "b"], "item": ["x", "y"], "time": [day, day]})).frame
    assert frame["timestamp"].to_list() == [MICROSECONDS - 18 * 3600 * 1_000_000] * 2


def test_times_with_fractions_stay_floats(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,time\na,x,1.5\nb,y,2\n")
    assert read_interactions(path).frame["timestamp"].to_list() == [1.5, 2.0]


def test_json_lines_ignore_what_is_not_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"user": "a", "price": 3, "item": "2020-01-01", "time": 1}\n'
        '{"item": "y", "user": "b", "price": "free", "style": {"k": [1]}, "time": 2}\n'
    )
    assert read_interactions(path).frame.rows() == [("a", "2020-01-01", 1), ("b", "y", 2)]


def test_a_hub_data_set_is_loaded_only_when_there_is_no_such_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def load_dataset(name: str, config: str | None) -> datasets.DatasetDict:
        asked.append((name, config))
        return datasets.DatasetDict({"train": datasets.Dataset(FRAME.to_arrow())})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.chdir(tmp_path)
    read = read_interactions("owner/name:small")
    assert read.frame.equals(EXPECTED)
    assert read.source == "owner/name:small"
    assert asked == [("owner/name", "small")]
    (tmp_path / "owner").mkdir()
    FRAME.write_csv(tmp_path / "owner" / "name.csv")
    assert read_interactions("owner/name.csv").frame.equals(EXPECTED)
    assert len(asked) == 1


def test_a_file_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def download(repo: str, file: str, *, repo_type: str, revision: str | None) -> str:
        assert (repo, file, repo_type, revision) == ("owner/name", "data/table.csv", "dataset", "v1")
        return str(write(".csv", tmp_path))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert read_interactions("hf://datasets/owner/name@v1/data/table.csv").frame.equals(EXPECTED)


def test_reading_a_table_does_not_import_torch(tmp_path: Path) -> None:
    # The package itself may import torch (it registers the model), so it is replaced by an empty one.
    root = Path(__file__).resolve().parents[2] / "modeling_glintru"
    path = write(".csv", tmp_path)
    code = f"""
    import sys, types
    package = types.ModuleType("modeling_glintru")
    package.__path__ = [{str(root)!r}]
    configuration = types.ModuleType("modeling_glintru.models.configuration_glintru")
    configuration.GlintRUError = type("GlintRUError", (ValueError,), {{}})
    loading = types.ModuleType("modeling_glintru.models.loading")
    loading.HubError = loading.ModelFolderError = configuration.GlintRUError
    loading.hub_advice = None
    sys.modules.update({{module.__name__: module for module in (package, configuration, loading)}})
    from modeling_glintru.data import filter_interactions, load_source
    assert len(filter_interactions(load_source({str(path)!r}))) == 4
    assert not {{"torch", "transformers", "datasets"}} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_reading_options_are_handed_on_only_where_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def opened(source: object, split: str, **options: object) -> readers.Table:
        asked.append((split, options))
        return readers.open_table(source, split)

    monkeypatch.setattr(interactions, "open_table", opened)
    read_interactions(FRAME)
    read_interactions(FRAME, encoding="utf-16", separator="::", columns=["a", "b"], quote="none", split="test")
    assert asked == [
        ("train", {}),
        ("test", {"encoding": "utf-16", "separator": "::", "columns": ["a", "b"], "quote": "none"}),
    ]


def test_a_format_without_times_is_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(source: object, split: str) -> readers.Table:
        return replace(readers.open_table(source, split), has_no_time=True)

    monkeypatch.setattr(interactions, "open_table", opened)
    read = read_interactions(FRAME.drop("ts"))
    assert read.frame["timestamp"].to_list() == [0, 1, 2, 3]
    assert read.steps_in_a_second is None
    assert read_interactions(FRAME, time_column="ts").frame["timestamp"].to_list() == EXPECTED["timestamp"].to_list()


def test_in_file_order_reads_no_times() -> None:
    read = read_interactions(FRAME, in_file_order=True)
    assert read.frame["timestamp"].to_list() == [0, 1, 2, 3]
    assert read.columns == {"user": "userId", "item": "movieId"}
    assert any("'ts'" in note for note in read.notes)
    with pytest.raises(DataError, match="leave it or --time_column out"):
        read_interactions(FRAME, in_file_order=True, time_column="ts")
    with pytest.raises(DataError, match="no column of times for --time_format"):
        read_interactions(FRAME, in_file_order=True, time_format="day_first")


@pytest.mark.needs_data
@pytest.mark.parametrize(
    ("name", "users", "items", "rows"),
    [
        ("ml-1m", 6040, 3416, 999_611),
        ("amazon-beauty", 22_363, 12_101, 198_502),
        ("amazon-video-games", 24_303, 10_672, 231_780),
    ],
)
def test_published_sizes(shared_data: Path, name: str, users: int, items: int, rows: int) -> None:
    read = read_interactions(shared_data / name / "interactions.parquet")
    assert (read.num_users, read.num_items, len(read)) == (users, items, rows)
