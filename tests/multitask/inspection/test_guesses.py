"""inspect: what it takes odd columns for."""

from typing import Any

import pytest

from multitask.inspection.guesses import guess

TEXTS = [f"a film of row {row}" for row in range(40)]


def guessed(**columns: Any) -> Any:
    return guess({"text": TEXTS, **columns})


def test_a_column_called_label_is_the_label() -> None:
    found = guessed(label=["pos", "neg"] * 20, rating=[row % 5 for row in range(40)])
    assert (found.label, found.other_labels) == ("label", ["rating"])


def test_other_columns_of_labels_are_named() -> None:
    found = guessed(sentiment=["pos", "neg"] * 20, shop=["a", "b"] * 20, stars=[row % 5 for row in range(40)])
    assert (found.label, found.other_labels) == ("stars", ["sentiment"])


def test_a_stray_number_is_no_reason_against_a_text() -> None:
    found = guess({"text": [*TEXTS, 12], "label": ["a", "b"] * 20 + ["a"]})
    assert found.text == ["text"]


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        (["Yes", "yes", "no", " no"], "classification"),
        (["Yes", "No", "Yes", "No"], "binary"),
        (["1", "1.0", "0", "0"], "binary"),
        (["1.234,5", "2,5", "1.234,5", "2,5"], "classification"),
        (["a,b", "b", "a", "a,b"], "multilabel"),
        (['["a", "b"]', "[]", '["a"]', '["b"]'], "multilabel"),
    ],
)
def test_kinds(labels: list[str], kind: str) -> None:
    assert guessed(label=labels * 10).kind == kind


def test_labels_spelled_as_lists_have_no_separator() -> None:
    assert guessed(label=['["a", "b"]', '["b"]', "[]", '["a", "b"]'] * 10).separator is None


def test_whole_numbers_with_a_stray_word_are_no_order() -> None:
    found = guess({"text": [*TEXTS, "film"], "label": [str(row % 5) for row in range(40)] + ["good"]})
    assert (found.kind, found.other_kind) == ("classification", None)


def test_ids_of_the_texts_of_a_pair_are_none_of_rows() -> None:
    ids = {f"#{side} ID": [str(1000 * side + row) for row in range(40)] for side in (1, 2)}
    pair = {"#1 String": TEXTS, "#2 String": TEXTS}
    labels = ["0", "1"] * 20
    assert guess({"Quality": labels, **ids, **pair}).id is None
    assert guess({"Quality": labels, "id": ids["#1 ID"], **pair}).id == "id"
