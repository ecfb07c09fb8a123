from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from modeling_glintru.data import item_features
from modeling_glintru.data.item_features import ItemEncoder, ItemFeatures
from modeling_glintru.data.items import read_items
from modeling_glintru.data.prepare import load_prepared, prepare
from modeling_glintru.errors import DataError, ModelFolderError, RecipeError
from modeling_glintru.jobs import prepare_data
from modeling_glintru.recipe import DataRecipe, Recipe, change_recipe
from modeling_glintru.recipe.keys import key_help
from modeling_glintru.recipe.resolve import without_folders
from modeling_glintru.training.folder import check_identity, run_identity

from .helpers import make_interactions

needs_sklearn = pytest.mark.skipif(find_spec("sklearn") is None, reason="scikit-learn is not installed")
RNG = np.random.default_rng(0)
WORDS = "lamp chair table red blue green light wood steel small large old new round".split()  # noqa: SIM905


def catalogue(n: int = 150, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "item_id": [f"i{i:03}" for i in range(n)],
            "title": [" ".join(rng.choice(WORDS, 3)).title() for _ in range(n)],
            "description": [" ".join(rng.choice(WORDS, 12)) + "." if i % 4 else None for i in range(n)],
            "brand": [f"Maker {rng.integers(9)}" for _ in range(n)],
            "genres": [[f"g{k}" for k in rng.integers(0, 6, 2)] if i % 3 else None for i in range(n)],
            "price": rng.exponential(20.0, n),
            "stock": [int(rng.integers(100)) if i % 5 else None for i in range(n)],
        }
    )
    return frame.with_columns(pl.Series("v", rng.standard_normal((n, 6)).astype(np.float32)))


def of_length_one(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def letters(texts: list[str]) -> np.ndarray:
    """A text encoder: how often each of four letters occurs."""
    return np.array([[text.count(letter) for letter in "aeio"] for text in texts], np.float64)


@needs_sklearn
def test_terms_are_those_of_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    frame = catalogue()
    table = read_items(frame, columns=["title", "description", "brand", "genres"])
    encoder = ItemEncoder.fit(table)
    vectors, known = encoder.encode(table)
    assert known.all()
    assert encoder.blocks == {"terms": vectors.shape[1]}
    # By hand: the words of title and description, and a word for each category.
    documents = [
        " ".join(
            [
                title,
                text or "",
                "brand" + brand.replace(" ", "").lower(),
                *(f"genres{g}" for g in sorted({*(genres or [])})),
            ]
        )
        for title, text, brand, genres in frame.select("title", "description", "brand", "genres").iter_rows()
    ]
    weights = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(documents)
    assert weights.shape[1] == len(WORDS) + 9 + 6
    # All dimensions are there, so that the products of the vectors are those of the weights.
    np.testing.assert_allclose(vectors @ vectors.T, (weights @ weights.T).toarray(), atol=2e-3)


@needs_sklearn
def test_projection_to_fewer_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer

    monkeypatch.setattr(item_features, "TERM_WIDTH", 5)
    frame = catalogue()
    vectors, _ = (encoder := ItemEncoder.fit(table := read_items(frame, columns=["title"]))).encode(table)
    assert encoder.width == 5
    weights = TfidfVectorizer(sublinear_tf=True, min_df=2).fit_transform(frame["title"].to_list())
    # Vectors are unique up to signs: their products are what counts.
    by_hand = TruncatedSVD(5, algorithm="arpack", random_state=1).fit_transform(weights)
    np.testing.assert_allclose(vectors @ vectors.T, of_length_one(by_hand) @ of_length_one(by_hand).T, atol=0.02)


def test_numbers() -> None:
    frame = pl.DataFrame(
        {"item_id": [1, 2, 3, 4], "price": [9.0, -99.0, None, 1e9], "day": pl.Series([0, 86_400, None, None])}
    ).with_columns(pl.from_epoch("day"))
    encoder = ItemEncoder.fit(table := read_items(frame))
    vectors, known = encoder.encode(table)
    assert known.tolist() == [True, True, False, True]
    logs = np.array([np.log(10), -np.log(100), np.log(1 + 1e9)])
    standard = (logs - logs.mean()) / logs.std()
    scale = np.sqrt(0.1 / 2)
    expected = scale * np.array(
        [[standard[0], -1, 0, 0], [standard[1], 1, 0, 0], [0, 0, 0, 0], [standard[2], 0, 0, 1]]  # item 3 has nothing
    )
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-7)
    assert np.square(vectors[:, :2]).sum() == pytest.approx(0.1 * (3 + 2) / 2)
    far = encoder.encode(read_items(pl.DataFrame({"item_id": [7], "price": [1e300]})))[0]
    np.testing.assert_allclose(far, [[4 * scale, 0, 0, scale]], rtol=1e-6)


def test_ready_made_vectors() -> None:
    given = RNG.standard_normal((20, 4)).astype(np.float32) + 3
    frame = pl.DataFrame({"item_id": range(20), "v": given}).with_columns(
        v=pl.when(pl.col("item_id") != 5).then(pl.col("v"))
    )
    encoder = ItemEncoder.fit(table := read_items(frame))
    vectors, known = encoder.encode(table)
    assert encoder.blocks == {"vector:v": 4}
    assert np.flatnonzero(~known).tolist() == [5]
    assert not vectors[5].any()
    expected = of_length_one(given - np.delete(given, 5, axis=0).mean(axis=0))
    np.testing.assert_allclose(np.delete(vectors, 5, axis=0), np.delete(expected, 5, axis=0), atol=1e-6)


def test_wide_vectors_are_projected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_features, "VECTOR_WIDTH", 3)
    given = (RNG.standard_normal((200, 7)) * [5, 4, 3, 0.1, 0.1, 0.1, 0.1]).astype(np.float32)
    encoder = ItemEncoder.fit(table := read_items(pl.DataFrame({"item_id": range(200), "v": given})))
    vectors, _ = encoder.encode(table)
    assert vectors.shape == (200, 3)
    units = of_length_one(given - given.mean(axis=0))
    _, _, axes = np.linalg.svd(units, full_matrices=False)
    expected = units @ axes[:3].T
    np.testing.assert_allclose(vectors @ vectors.T, expected @ expected.T, atol=2e-3)


@needs_sklearn
def test_blocks_stand_side_by_side_and_order_of_rows_does_not_matter() -> None:
    frame = catalogue()
    table = read_items(frame)
    encoder, vectors, _ = ItemEncoder.fit_encode(table)
    assert list(encoder.blocks) == ["terms", "vector:v", "numbers"]
    assert (encoder.blocks["vector:v"], encoder.blocks["numbers"]) == (6, 4)
    assert vectors.dtype == np.float32
    assert vectors.shape == (150, encoder.width)
    only, _ = ItemEncoder.fit(read_items(frame, columns=["v"])).encode(read_items(frame, columns=["v"]))
    np.testing.assert_array_equal(vectors[:, encoder.blocks["terms"] :][:, :6], only)
    _, other, _ = ItemEncoder.fit_encode(read_items(frame.sample(fraction=1, shuffle=True, seed=3)))
    np.testing.assert_array_equal(other, vectors)


@needs_sklearn
def test_new_items_get_the_bits_that_the_same_items_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_features, "VECTOR_WIDTH", 5)
    table = read_items(catalogue())
    encoder, vectors, known = ItemEncoder.fit_encode(table)
    for rows in ([7], [0, 149], list(range(40, 90))):
        some = table.frame["item_id"][rows].to_list()
        found, has_any = encoder.encode(catalogue().filter(pl.col("item_id").is_in(some)))
        np.testing.assert_array_equal(found, vectors[rows])
        np.testing.assert_array_equal(has_any, known[rows])


@needs_sklearn
def test_saved_encoder_gives_the_same_bits_in_another_process(tmp_path: Path) -> None:
    table = read_items(frame := catalogue())
    encoder, vectors, _ = ItemEncoder.fit_encode(table)
    encoder.save(tmp_path / "a" / "b")
    assert sorted(file.name for file in (tmp_path / "a" / "b").iterdir()) == [
        *("item_encoder.json", "item_encoder.safetensors"),
    ]
    loaded = ItemEncoder.load(tmp_path / "a" / "b")
    assert (loaded.columns, loaded.blocks, loaded.width) == (encoder.columns, encoder.blocks, encoder.width)
    assert (loaded.texts.name, loaded.texts.version) == ("tfidf", "1")
    np.testing.assert_array_equal(loaded.encode(table)[0], vectors)
    loaded.save(tmp_path / "c")
    for file in (tmp_path / "c").iterdir():
        assert file.read_bytes() == (tmp_path / "a" / "b" / file.name).read_bytes()
    frame.write_parquet(tmp_path / "items.parquet")
    code = (
        "import sys, numpy as np; from modeling_glintru.data.item_features import ItemEncoder; "
        "np.save(sys.argv[3], ItemEncoder.load(sys.argv[1]).encode(sys.argv[2])[0])"
    )
    arguments = [tmp_path / "c", tmp_path / "items.parquet", tmp_path / "x.npy"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), vectors)


@needs_sklearn
def test_items_without_features() -> None:
    frame = pl.DataFrame(
        {
            "item_id": range(6),
            "title": ["red lamp", "red chair", "blue lamp", None, "? !", ""],
            "price": [1.0, 2.0, None, None, None, 3.0],
        }
    )
    encoder = ItemEncoder.fit(table := read_items(frame))
    vectors, known = encoder.encode(table)
    assert known.tolist() == [True, True, True, False, False, True]
    assert not vectors[~known].any()
    assert not vectors[5, : encoder.blocks["terms"]].any()
    strange, known = encoder.encode(pl.DataFrame({"item_id": [9], "title": ["unheard words"]}))
    assert not known.any()
    assert not strange.any()
    with pytest.raises(DataError, match="has nothing to learn features from"):
        ItemEncoder.fit(read_items(pl.DataFrame({"item_id": [1, 2], "title": ["?", "!"]})))


@needs_sklearn
def test_missing_columns_of_new_items_are_missing_values() -> None:
    encoder, vectors, _ = ItemEncoder.fit_encode(read_items(catalogue()))
    found, known = encoder.encode(catalogue().select("item_id", "v"))
    begin = encoder.blocks["terms"]
    np.testing.assert_array_equal(found[:, begin : begin + 6], vectors[:, begin : begin + 6])
    assert not found[:, :begin].any()
    assert known.all()
    assert (found[:, -2:] > 0).all()  # both numbers are missing
    with pytest.raises(DataError, match="none of the columns of which the features were made"):
        encoder.encode(pl.DataFrame({"item_id": ["x"], "colour": ["red"]}))
    with pytest.raises(DataError, match="Column 'v' gives vectors of 3 numbers, but gave 6 when"):
        encoder.encode(pl.DataFrame({"item_id": ["x"], "v": [[1.0, 2.0, 3.0]]}))


def test_scikit_learn_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(DataError, match=r'need scikit-learn: pip install "glintru\[items\]"'):
        ItemEncoder.fit(read_items(catalogue(5)))


# ---------------------------------------------------------------------- other text encoders


def test_callable_as_text_encoder(tmp_path: Path) -> None:
    frame = catalogue().select("item_id", "title", "description").with_columns(pl.Series("extra", RNG.random(150)))
    frame[3, "title"] = None
    frame = frame.with_columns(description=pl.when(pl.col("item_id") != "i003").then("description"))
    encoder, vectors, known = ItemEncoder.fit_encode(table := read_items(frame), letters)
    assert encoder.blocks == {"text": 4, "numbers": 2}
    assert encoder.texts.name == f"{__name__}:letters"
    texts = [". ".join(filter(None, row)) for row in frame.select("title", "description").iter_rows()]
    counts = letters(texts)
    expected = of_length_one(counts - np.delete(counts, 3, axis=0).mean(axis=0))
    expected[3] = 0
    np.testing.assert_allclose(vectors[:, :4], expected, atol=1e-5)
    assert known.all()  # all have the number
    encoder.save(tmp_path)
    np.testing.assert_array_equal(ItemEncoder.load(tmp_path, letters).encode(table)[0], vectors)
    with pytest.raises(DataError, match=r"a function of Python, which is not saved: give it to ItemEncoder\.load"):
        ItemEncoder.load(tmp_path).encode(table)
    with pytest.raises(DataError, match=r"made with the text encoder '.*:letters', not with '.*:of_length_one'"):
        ItemEncoder.load(tmp_path, of_length_one)


class Versioned:
    def __init__(self, version: str, width: int) -> None:
        self.version, self.width = version, width

    def __call__(self, texts: list[str]) -> np.ndarray:
        return np.tile([[len(text)] for text in texts], self.width)


def test_another_version_or_width_of_a_text_encoder(tmp_path: Path) -> None:
    table = read_items(catalogue().select("item_id", "title"))
    ItemEncoder.fit(table, Versioned("2.0", 3)).save(tmp_path)
    assert ItemEncoder.load(tmp_path, Versioned("2.0", 3)).encode(table)[0].shape == (150, 3)
    with pytest.raises(DataError, match=r"version 2\.0 of the text encoder '.*Versioned', but this is version 2\.1"):
        ItemEncoder.load(tmp_path, Versioned("2.1", 3))
    with pytest.raises(DataError, match=r"Versioned' gives vectors of 5 numbers, but gave 3 when"):
        ItemEncoder.load(tmp_path, Versioned("2.0", 5)).encode(table)


@pytest.mark.parametrize(
    ("encoder", "sentence"),
    [
        (lambda texts: np.zeros((3, 2)), r"made an array of shape \(3, 2\) of 150 texts"),
        (lambda texts: np.zeros(len(texts)), r"made an array of shape \(150,\) of 150 texts"),
        (lambda texts: np.full((len(texts), 2), np.nan), "gave numbers that are not finite"),
        ("tfdif", r"no text encoder 'tfdif'; did you mean 'tfidf'\?"),
    ],
)
def test_bad_text_encoders(encoder: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        ItemEncoder.fit(read_items(catalogue().select("item_id", "title")), encoder)


def test_sentence_transformers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = read_items(catalogue().select("item_id", "title"))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DataError, match=r'needs sentence-transformers: pip install "glintru\[text\]"'):
        ItemEncoder.fit(table, "sentence-transformers/small")

    class SentenceTransformer:  # as much of the library's class as is used
        loaded: list[tuple[str, str | None]] = []  # noqa: RUF012

        def __init__(self, name: str, revision: str | None = None) -> None:
            if name == "sentence-transformers/gone":
                raise OSError("no such model")
            self.loaded.append((name, revision))

        def encode(self, texts: list[str], **options: Any) -> np.ndarray:
            return letters(texts).astype(np.float32)

    module = ModuleType("sentence_transformers")
    module.SentenceTransformer = SentenceTransformer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sentence_transformers", module)
    commit = "0123456789abcdef"
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda name, file, revision=None: f"/cache/snapshots/{revision or commit}/{file}",
    )
    encoder, vectors, _ = ItemEncoder.fit_encode(table, "sentence-transformers/small")
    assert (encoder.texts.name, encoder.texts.version) == ("sentence-transformers/small", commit)
    encoder.save(tmp_path)
    np.testing.assert_array_equal(ItemEncoder.load(tmp_path).encode(table)[0], vectors)
    assert SentenceTransformer.loaded[1:] == [("sentence-transformers/small", commit)]  # the same revision again
    with pytest.raises(DataError, match=r"'sentence-transformers/gone' cannot be loaded \(no such model\)"):
        ItemEncoder.fit(table, "sentence-transformers/gone")
    # A folder has a checksum in the place of a revision.
    (folder := tmp_path / "model").mkdir()
    save_file({"x": np.zeros(3)}, folder / "model.safetensors")
    ItemEncoder.fit(table, str(folder)).save(tmp_path / "other")
    save_file({"x": np.ones(3)}, folder / "model.safetensors")
    with pytest.raises(DataError, match="vectors of different versions do not fit together"):
        ItemEncoder.load(tmp_path / "other").encode(table)


@pytest.mark.skipif(find_spec("wordllama") is None, reason="wordllama is not installed")
def test_wordllama(tmp_path: Path) -> None:
    table = read_items(
        pl.DataFrame({"item_id": range(4), "title": ["a red lamp", "a crimson light", "motor oil", "engine grease"]})
    )
    encoder, vectors, known = ItemEncoder.fit_encode(table, "wordllama")
    assert encoder.blocks == {"text": 256}
    assert known.all()
    near = vectors @ vectors.T
    assert near[0].argsort()[-2] == 1
    assert near[2].argsort()[-2] == 3
    encoder.save(tmp_path)
    np.testing.assert_array_equal(ItemEncoder.load(tmp_path).encode(table)[0], vectors)
    settings = json.loads((tmp_path / "item_encoder.json").read_text())
    settings["text_version"] = "0.0.1"
    (tmp_path / "item_encoder.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"made with version 0\.0\.1 of the text encoder 'wordllama', but this is"):
        ItemEncoder.load(tmp_path).encode(table)


def test_wordllama_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(DataError, match="needs that library: pip install wordllama"):
        ItemEncoder.fit(read_items(catalogue(5).select("item_id", "title")), "wordllama")


# ---------------------------------------------------------------------- files and vocabularies


def test_damaged_files(tmp_path: Path) -> None:
    ItemEncoder.fit(read_items(catalogue().select("item_id", "price", "v"))).save(tmp_path)
    settings_file, arrays_file = tmp_path / "item_encoder.json", tmp_path / "item_encoder.safetensors"
    settings, arrays = json.loads(settings_file.read_text()), load_file(arrays_file)
    for change in (
        *({"format": "other"}, {"blocks": {"vector:v": 5}}, {"columns": [{"nme": "v"}]}, {"columns": 3}),
        {"blocks": {"vector:w": 6}},
    ):
        settings_file.write_text(json.dumps(settings | change))
        with pytest.raises(DataError, match=r"item_encoder\.json is damaged or does not belong to the files beside it"):
            ItemEncoder.load(tmp_path)
    settings_file.write_text(json.dumps(settings | {"format_version": 2}))
    with pytest.raises(DataError, match="has the format 2, but this version reads 1"):
        ItemEncoder.load(tmp_path)
    settings_file.write_text(json.dumps(settings | {"text_version": "2"}))
    with pytest.raises(DataError, match="made with version 2 of the text encoder 'tfidf', but this is version 1"):
        ItemEncoder.load(tmp_path)
    settings_file.write_text(json.dumps(settings))
    arrays_file.write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"item_encoder\.safetensors is damaged"):
        ItemEncoder.load(tmp_path)
    save_file({name: array for name, array in arrays.items() if name != "numbers/mean"}, arrays_file)
    with pytest.raises(DataError, match=r"item_encoder\.json is damaged or does not belong"):
        ItemEncoder.load(tmp_path)
    arrays_file.unlink()
    with pytest.raises(DataError, match=r"item_encoder\.safetensors is missing"):
        ItemEncoder.load(tmp_path)
    settings_file.unlink()
    with pytest.raises(DataError, match=r"has no item_encoder\.json: no features of items were made there"):
        ItemEncoder.load(tmp_path)


@needs_sklearn
def test_features_of_a_vocabulary(tmp_path: Path) -> None:
    table = read_items(frame := catalogue(30))
    ids = ("i007", "unknown", "i002", "i011")
    features = ItemFeatures.of(table, ids)
    assert features.matrix.shape == (5, features.encoder.width)
    assert features.known.tolist() == [False, True, False, True, True]
    assert not features.matrix[[0, 2]].any()
    # The encoder learned from the items of the vocabulary alone.
    own = read_items(frame.filter(pl.col("item_id").is_in(ids))).read_as(table.columns)
    expected, _ = ItemEncoder.fit(own).encode(own)
    np.testing.assert_array_equal(features.matrix[[3, 1, 4]], expected)
    features.save(tmp_path)
    loaded = ItemFeatures.load(tmp_path, 4)
    np.testing.assert_array_equal(loaded.matrix, features.matrix)
    np.testing.assert_array_equal(loaded.known, features.known)
    with pytest.raises(DataError, match=r"item_features\.safetensors is damaged or does not belong"):
        ItemFeatures.load(tmp_path, 5)
    other = ItemFeatures.of(table, ("i011", "i020"), encoder=loaded.encoder)
    np.testing.assert_array_equal(other.matrix[1], features.matrix[4])
    assert other.encoder is loaded.encoder


def interactions() -> Any:
    """Ten users of the first twenty items of `catalogue`, of which i019 is replaced by one that is not in it."""
    names = [f"i{k:03}" if k != 19 else "new" for k in range(20)]
    items = [names[(user * 3 + step) % 20] for user in range(10) for step in range(6)]
    return make_interactions([user for user in range(10) for _ in range(6)], items, list(range(60)))


@pytest.mark.parametrize("on_disk", [False, True])
def test_prepared_data_has_the_features(on_disk: bool, tmp_path: Path) -> None:
    table = read_items(catalogue(30), columns=["price", "v"])
    data = prepare(interactions(), tmp_path / "out" if on_disk else None, items=table)
    ids = data.processor.item_ids
    for found in (data, *([load_prepared(tmp_path / "out")] if on_disk else [])):
        features = found.item_features
        assert features is not None
        assert features.matrix.shape == (21, features.encoder.width) == (21, 8)
        assert features.matrix.dtype == np.float32
        assert not features.matrix[0].any()
        assert features.known.tolist() == [False, *(raw != "new" for raw in ids)]
        own = table.take(table.rows_of([raw for raw in ids if raw != "new"]))
        np.testing.assert_array_equal(features.matrix[1:][features.known[1:]], features.encoder.encode(own)[0])
        assert found.processor.title("i003") == catalogue()["title"][3]
        assert found.processor.title("new") is None
        text = found.describe()
        assert "of the vocabulary 19 items have features, 1 have none; 11 items of the table are not in it" in text
        assert "a vector of 8 numbers each" in text
    if on_disk:
        path = tmp_path / "out" / "item_features.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(DataError, match=r"item_features\.safetensors is not what was written"):
            load_prepared(tmp_path / "out")


def test_prepared_data_without_items() -> None:
    data = prepare(interactions())
    assert data.item_features is None
    assert "item_features" not in data.summary


def test_given_titles_take_the_place_of_those_of_the_items() -> None:
    data = prepare(interactions(), items=read_items(catalogue(), columns=["price"]), item_titles={"i003": "mine"})
    assert data.processor.title("i003") == "mine"
    assert data.processor.title("i004") is None


def test_another_shop_takes_the_encoder_of_the_first() -> None:
    encoder = ItemEncoder.fit(first := read_items(catalogue(seed=1), columns=["price", "v"]))
    data = prepare(interactions(), items=read_items(catalogue()), encoder=encoder)  # which has more columns
    features = data.item_features
    assert features is not None
    assert features.encoder is encoder
    place = data.processor.index_of("i003")
    expected, _ = encoder.encode(catalogue().filter(pl.col("item_id") == "i003"))
    np.testing.assert_array_equal(features.matrix[place], expected[0])
    assert [column["name"] for column in data.summary["item_features"]["columns"]] == ["price", "v"]
    assert first.columns == encoder.columns


def test_a_model_s_vocabulary_with_new_items() -> None:
    old = prepare(interactions(), items=read_items(catalogue(), columns=["price", "v"]))
    assert old.item_features is not None
    bought = ["i003", "i100", "i101", "i004", "i004", "i101", "i100", "i003"]
    more = make_interactions([1] * 4 + [2] * 4, bought, list(range(8)))
    data = prepare(
        more,
        processor=old.processor,
        add_items=True,
        items=read_items(catalogue()),
        encoder=old.item_features.encoder,
    )
    assert data.item_features is not None
    np.testing.assert_array_equal(data.item_features.matrix[:21], old.item_features.matrix)
    assert data.item_features.known[21:].all()
    assert len(data.item_features.matrix) == 23


def test_items_of_another_shop_are_refused(tmp_path: Path) -> None:
    items = read_items(pl.DataFrame({"item_id": ["x"], "price": [1.0]}))
    with pytest.raises(DataError, match="none of the 20 items of the vocabulary: its ids are such as 'x'"):
        prepare(interactions(), tmp_path / "out", items=items)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- recipes and runs


def written(folder: Path) -> dict[str, str]:
    interactions().frame.write_csv(folder / "log.csv")
    catalogue().select("item_id", "title", "price", "stock").write_csv(folder / "items.csv")
    return {"source": str(folder / "log.csv"), "items": str(folder / "items.csv")}


def recipe_of(**data: Any) -> Recipe:
    return Recipe("run", data=DataRecipe(**data))


def test_recipe_names_the_table_of_items(tmp_path: Path) -> None:
    files, said = written(tmp_path), []
    recipe = recipe_of(**files, item_features=("price", "stock"))
    data = prepare_data(recipe, tmp_path / "prepared", say=said.append)
    assert data.item_features is not None
    assert data.item_features.encoder.blocks == {"numbers": 4}
    assert data.processor.title("i003") == catalogue()["title"][3]
    assert "Items     items.csv: item = 'item_id', title = 'title'" in said[0]
    # From the prepared folder: its own features, or those of another table.
    again = prepare_data(recipe_of(source=str(tmp_path / "prepared")), say=said.append)
    np.testing.assert_array_equal(again.item_features.matrix, data.item_features.matrix)
    other = prepare_data(recipe_of(source=str(tmp_path / "prepared")), items=catalogue().select("item_id", "v"))
    assert other.item_features.encoder.blocks == {"vector:v": 6}
    # In memory, in the place of the recipe's.
    memory = prepare_data(recipe, items=read_items(catalogue(), columns=["v"]), say=said.append)
    assert memory.item_features.encoder.blocks == {"vector:v": 6}
    # A model's vocabulary to which nothing is added needs no features.
    gone = recipe_of(source=files["source"], items=str(tmp_path / "gone.csv"))
    assert prepare_data(gone, processor=data.processor, say=said.append).item_features is None
    with pytest.raises(DataError, match=r"no file '.*gone\.csv'"):
        prepare_data(gone, say=said.append)


def test_recipe_says_the_text_encoder() -> None:
    with pytest.raises(RecipeError, match=r"data\.text_encoder: There is no text encoder 'tfdif'; did you mean"):
        recipe_of(text_encoder="tfdif")
    with pytest.raises(RecipeError, match=r"data\.item_features must name columns"):
        recipe_of(item_features=())
    texts = prepare(
        interactions(), items=read_items(catalogue().select("item_id", "title")), text_encoder=letters
    ).item_features
    assert texts is not None
    assert texts.encoder.texts.name.endswith(":letters")


def test_keys_of_items() -> None:
    changes = ["data.items=a/items.csv", "item_features=[price, stock]", "text_encoder=wordllama"]
    data = change_recipe(recipe_of(), changes).data
    assert (data.items, data.item_features, data.text_encoder) == ("a/items.csv", ("price", "stock"), "wordllama")
    assert Recipe.from_dict(change_recipe(recipe_of(), changes).to_dict()).data == data
    # The short key is still that of a fine-tuning.
    start = change_recipe(recipe_of(), ["fine_tuning.from_model=m", "items=known"]).fine_tuning
    assert start is not None
    assert start.items == "known"
    assert "A table of what is known of the items" in " ".join(key_help().split())


def test_folders_of_items_are_not_written_down() -> None:
    assert without_folders(recipe_of(source="log.csv", items="/home/ann/items.csv")).data.items == "items.csv"


def test_features_are_a_part_of_a_run_s_identity(tmp_path: Path) -> None:
    table = read_items(catalogue(), columns=["price"])
    with_price, without = prepare(interactions(), items=table), prepare(interactions())
    with_stock = prepare(interactions(), items=read_items(catalogue(), columns=["stock"]))
    identity = run_identity(recipe_of(items="a/items.csv"), with_price)
    assert identity == run_identity(recipe_of(items="b/items.csv"), prepare(interactions(), items=table))
    (file := tmp_path / "run.json").write_text(json.dumps(identity))
    check_identity(file, identity)
    for data in (without, with_stock):
        with pytest.raises(ModelFolderError, match="the features of the items are not those of the run"):
            check_identity(file, run_identity(recipe_of(), data))
