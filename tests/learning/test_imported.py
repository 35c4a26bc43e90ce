"""Files of other tools as the material of lessons."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.learning.collected import Collected, DamagedFile
from service.learning.imported import read_rows
from service.learning.lessons import Lessons, make_lessons
from service.learning.rows import to_openai, to_trl
from tests.learning.made import prompt

ASKED = "Write about the sea."
GOOD, BAD = "Sea water has salt in it.", "Sea water is never sweet."
SALT = {"type": "keywords", "include": ["salt"]}


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content}


def write(folder: Path, rows: Iterable[Mapping[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def learn(found: Iterable[Collected]) -> Lessons:
    each = list(found)
    return make_lessons(each, {one.prompt.id: "train" for one in each})


TEXTS: list[dict[str, Any]] = [
    {"prompt": ASKED, "completion": GOOD},
    {"prompt": [user(ASKED)], "completion": [assistant(GOOD)], "source": "other columns are ignored"},
    {"prompt": ASKED, "completion": GOOD, "label": True},
    {"messages": [user(ASKED), {**assistant(GOOD), "weight": 1}]},
    {"messages": [user([{"type": "text", "text": ASKED}]), assistant(GOOD)]},
    {"prompt": ASKED, "completion": GOOD, "evaluators": [SALT]},
    {"prompt": ASKED, "completion": GOOD, "evaluators": json.dumps([SALT])},
]
PAIRS: list[dict[str, Any]] = [
    {"prompt": ASKED, "chosen": GOOD, "rejected": BAD},
    {"prompt": [user(ASKED)], "chosen": [assistant(GOOD)], "rejected": [assistant(BAD)]},
    {"chosen": [user(ASKED), assistant(GOOD)], "rejected": [user(ASKED), assistant(BAD)]},
    {
        "input": {"messages": [user(ASKED)]},
        "preferred_output": [assistant(GOOD)],
        "non_preferred_output": [assistant(BAD)],
    },
]


@pytest.mark.parametrize("row", TEXTS)
def test_a_text_in_each_format_is_a_best_text(tmp_path: Path, row: Mapping[str, Any]) -> None:
    found = learn(read_rows(write(tmp_path, [row])))

    [best] = found.texts
    assert ([message.content for message in best.prompt.messages], best.text) == ([ASKED], GOOD)
    assert found.pairs == []


@pytest.mark.parametrize("row", PAIRS)
def test_a_pair_in_each_format_is_a_pair_and_its_better_text_a_best_one(tmp_path: Path, row: Mapping[str, Any]) -> None:
    found = learn(read_rows(write(tmp_path, [row])))

    [pair] = found.pairs
    assert (pair.prompt.text, pair.chosen, pair.rejected) == (ASKED, GOOD, BAD)
    assert [best.text for best in found.texts] == [GOOD]


def test_what_is_exported_is_read_again(tmp_path: Path) -> None:
    lessons = learn(read_rows(write(tmp_path, PAIRS[:1])))
    for name, form in (("trl", to_trl), ("openai", to_openai)):
        again = learn(read_rows(write(tmp_path, form(lessons.texts, lessons.pairs), f"{name}.jsonl")))
        assert [best.text for best in again.texts] == [GOOD]
        assert [(pair.chosen, pair.rejected) for pair in again.pairs] == [(GOOD, BAD)]


def test_a_system_message_and_earlier_turns_stay_in_the_prompt(tmp_path: Path) -> None:
    turns = [{"role": "developer", "content": "Be kind."}, user("Hi."), assistant("Hello."), user(ASKED)]
    [found] = read_rows(write(tmp_path, [{"messages": [*turns, assistant(GOOD)]}]))

    assert [message.role for message in found.prompt.messages] == ["system", "user", "assistant", "user"]


def test_rows_of_one_prompt_are_taken_together(tmp_path: Path) -> None:
    rows = [
        {"prompt": ASKED, "completion": GOOD, "label": True},
        {"prompt": ASKED, "completion": BAD, "label": False},
    ]
    found = read_rows(write(tmp_path, rows))

    assert len(found) == 1
    [pair] = learn(found).pairs
    assert (pair.chosen, pair.rejected) == (GOOD, BAD)


def test_a_text_that_breaks_the_rules_of_its_row_is_not_a_lesson(tmp_path: Path) -> None:
    rows = [{"prompt": ASKED, "completion": BAD, "evaluators": [SALT]}]
    assert learn(read_rows(write(tmp_path, rows))).texts == []


def test_line_ends_inside_texts_end_no_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": ASKED, "completion": f"{GOOD}\u2028Yes.\x85"}, {"prompt": "Hi.", "completion": GOOD}]
    path.write_text("\ufeff" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")

    assert [found.texts[0].text for found in read_rows(path)] == [f"{GOOD}\u2028Yes.\x85", GOOD]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: it is not JSON"),
        ("[" * 100_000, "line 2: it is not JSON"),
        ("[1]", "line 2: it is not an object"),
        ('{"question": "?"}', "line 2: it has none of these: prompt and completion"),
        ('{"prompt": "", "completion": "x"}', "line 2: the prompt must end with a message of the user"),
        ('{"prompt": 3, "completion": "x"}', "line 2: the prompt must end with a message of the user"),
        ('{"prompt": ["Hi."], "completion": "x"}', "line 2: a message must have a role and a content"),
        ('{"prompt": [{"role": ["user"], "content": "Hi."}], "completion": "x"}', "line 2: a message must have a role"),
        ('{"prompt": "Hi.", "completion": "x", "label": "false"}', "line 2: label: must be true or false"),
        ('{"prompt": "Hi.", "completion": "x", "label": [true]}', "line 2: label: must be true or false"),
        ('{"messages": [{"role": "user", "content": "Hi."}]}', "line 2: an answer must be a text, or one message"),
        ('{"messages": [{"role": "assistant", "content": "Hi."}]}', "line 2: the prompt must end with a message"),
        ('{"prompt": "Hi.", "completion": 7}', "line 2: an answer must be a text"),
        ('{"prompt": "Hi.", "completion": "x\\ud800"}', "line 2: it has half a surrogate pair"),
        ('{"prompt": [{"role": "tool", "content": "x"}], "completion": "x"}', "line 2: role: Input should be"),
        (
            '{"prompt": [{"role": "user", "content": [{"type": "image_url"}]}], "completion": "x"}',
            "line 2: a message must have only text",
        ),
        ('{"chosen": [1, 2], "rejected": [3, 4]}', "line 2: chosen and rejected answer different conversations"),
        ('{"prompt": "Hi.", "completion": "x", "evaluators": 5}', "line 2: evaluators: must be a list"),
        ('{"prompt": "Hi.", "completion": "x", "evaluators": "{"}', "line 2: evaluators: it is not JSON"),
        ('{"prompt": "Hi.", "completion": "x", "evaluators": [{"type": "judge"}]}', "line 2: evaluators: one of them"),
    ],
)
def test_a_broken_row_is_named_by_its_line(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps(TEXTS[0])}\n{line}\n")

    with pytest.raises(DamagedFile) as raised:
        read_rows(path)
    assert str(raised.value).startswith(f"{path}, {says}"), raised.value


def test_a_file_that_is_missing_empty_or_not_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"none\.jsonl cannot be read: No such file"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DamagedFile, match=r"empty\.jsonl has no rows"):
        read_rows(tmp_path / "empty.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DamagedFile, match=r"bytes\.jsonl is not UTF-8"):
        read_rows(tmp_path / "bytes.jsonl")


def test_parquet_files_have_the_same_rows(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow", reason="it comes with the extra learn")
    parquet = pytest.importorskip("pyarrow.parquet")
    stated = [{**row, "evaluators": json.dumps([SALT])} for row in (PAIRS[1], {**PAIRS[1], "prompt": [user("Hi.")]})]
    path = tmp_path / "rows.parquet"
    parquet.write_table(arrow.Table.from_pylist(stated), path)

    assert [len(learn([found]).pairs) for found in read_rows(path)] == [1, 1]
    stated[1]["prompt"] = [assistant("Hi.")]
    parquet.write_table(arrow.Table.from_pylist(stated), path)
    with pytest.raises(DamagedFile, match=r"rows\.parquet, row 2: the prompt must end"):
        read_rows(path)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("PAR")
    with pytest.raises(DamagedFile, match=r"rows\.parquet( is not a Parquet file|: Parquet needs pyarrow)"):
        read_rows(tmp_path / "rows.parquet")


def test_files_of_the_same_name_do_not_share_ids(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, other = (read_rows(write(folder, TEXTS[:1])) for folder in (tmp_path, tmp_path / "other"))
    assert one[0].prompt.id != other[0].prompt.id
    assert one[0].prompt.text == prompt(text=ASKED).text
