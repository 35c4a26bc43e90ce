"""Files of other tools as the material of lessons: lines of JSON, or Parquet, a text or a pair in each row.

- TRL's prompt-completion, preference and unpaired formats, with plain texts or messages, and its language modeling
  format with messages (https://huggingface.co/docs/trl/dataset_formats)
- OpenAI's formats for supervised fine-tuning and for direct preference optimization

A row may have ``evaluators``, as a request states them, also as a text of JSON, which tables need. Other columns are
ignored. All texts are the operator's own: a completion is good unless it breaks its rules, is labelled as bad, or
loops. Rows of one prompt are taken together.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from service.learning.collected import Collected, DamagedFile, Preference, Rating, Text
from service.learning.prompts import Message, Prompt
from service.learning.stored import kinds_of

_ROLES = {"developer": "system"}
_FORMS = (
    "prompt and completion, prompt, chosen and rejected, messages, or input, preferred_output and non_preferred_output"
)

Row = Mapping[str, Any]


def read_rows(path: Path) -> Sequence[Collected]:
    """The material in a file. Raises DamagedFile, which names the first row that is broken, also for a file without
    rows."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    found = list[Collected]()
    for number, row in _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path):
        try:
            found.append(_read(row, f"{path.stem}-{digest}-{number}"))
        except ValueError as error:
            raise DamagedFile(f"{path}, {_place(path)} {number}: {_reason(error)}") from error
    if not found:
        raise DamagedFile(f"{path} has no rows")
    return _merge(found)


def _merge(rows: Sequence[Collected]) -> Sequence[Collected]:
    """Those with the same prompt as one."""
    found: dict[str, Collected] = {}
    for row in rows:
        same = row.prompt.model_copy(update={"id": ""}).model_dump_json()
        found[same] = _join(found[same], row) if same in found else row
    return list(found.values())


def _join(one: Collected, other: Collected) -> Collected:
    places = len(one.texts)
    moved = (Preference(chosen=said.chosen + places, rejected=said.rejected + places) for said in other.preferences)
    return one.model_copy(update={"texts": (*one.texts, *other.texts), "preferences": (*one.preferences, *moved)})


def _read(row: Row, its_id: str) -> Collected:
    """Raises ValueError."""
    match row:
        case {"input": {"messages": asked}, "preferred_output": chosen, "non_preferred_output": rejected}:
            return _pair(row, its_id, _messages(asked), _reply(chosen), _reply(rejected))
        case {"prompt": asked, "chosen": chosen, "rejected": rejected}:
            return _pair(row, its_id, _messages(asked), _reply(chosen), _reply(rejected))
        case {"chosen": [*_] as chosen, "rejected": [*_] as rejected}:
            if chosen[:-1] != rejected[:-1]:
                raise ValueError("chosen and rejected answer different conversations")
            return _pair(row, its_id, _messages(chosen[:-1]), _reply(chosen[-1:]), _reply(rejected[-1:]))
        case {"prompt": asked, "completion": completion}:
            text = Text(text=_reply(completion), source="given", rating=_rating(row.get("label")))
            return Collected(prompt=_prompt(row, its_id, _messages(asked)), texts=(text,))
        case {"messages": [*asked, reply]}:
            text = Text(text=_reply([reply]), source="given")
            return Collected(prompt=_prompt(row, its_id, _messages(asked)), texts=(text,))
        case _:
            raise ValueError(f"it has none of these: {_FORMS}")


def _pair(row: Row, its_id: str, asked: Sequence[Message], chosen: str, rejected: str) -> Collected:
    """A pair. Its chosen text is one to imitate, too."""
    texts = (Text(text=chosen, source="given"), Text(text=rejected, source="given", rating="down"))
    return Collected(prompt=_prompt(row, its_id, asked), texts=texts, preferences=(Preference(chosen=0, rejected=1),))


def _prompt(row: Row, its_id: str, asked: Sequence[Message]) -> Prompt:
    stated = row.get("evaluators") or ()
    evaluators = _parsed(stated) if isinstance(stated, str) else stated
    if not isinstance(evaluators, list | tuple) or not all(isinstance(each, Mapping) for each in evaluators):
        raise ValueError("evaluators: must be a list of evaluators")
    prompt = Prompt(id=its_id, messages=tuple(asked), evaluators=tuple(_filled(each) for each in evaluators))
    if prompt.verifiers is None:
        raise ValueError("evaluators: one of them is wrong, or cannot be checked by a text alone")
    return prompt.model_copy(update={"kinds": kinds_of(prompt)})


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise ValueError("evaluators: it is not JSON") from None


def _messages(asked: Any) -> Sequence[Message]:
    """The messages of a conversation, or of a plain prompt. It must end with the user."""
    if isinstance(asked, str):
        asked = [{"role": "user", "content": asked}]
    found = [_message(each) for each in asked] if isinstance(asked, Sequence) else []
    if not found or found[-1].role != "user" or not found[-1].content.strip():
        raise ValueError("the prompt must end with a message of the user")
    return found


def _reply(answer: Any) -> str:
    """The text of an answer: a plain one, or a message of the assistant."""
    if isinstance(answer, str):
        return answer
    if not isinstance(answer, Sequence) or len(answer) != 1 or (message := _message(answer[0])).role != "assistant":
        raise ValueError("an answer must be a text, or one message of the assistant")
    return message.content


def _rating(label: Any) -> Rating | None:
    """TRL's label of an unpaired text."""
    if label not in (None, True, False):
        raise ValueError("label: must be true or false")
    return None if label is None else "up" if label else "down"


def _message(stated: Any) -> Message:
    if not isinstance(stated, Mapping) or not isinstance(stated.get("role"), str):
        raise ValueError("a message must have a role and a content")  # noqa: TRY004 - the file is at fault
    content = stated.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        parts = [part.get("text") if isinstance(part, Mapping) else None for part in content]
        if not all(isinstance(part, str) for part in parts):
            raise ValueError("a message must have only text")
        content = "".join(map(str, parts))
    return Message(role=_ROLES.get(stated["role"], stated["role"]), content=content)


def _filled(evaluator: Mapping[str, Any]) -> Mapping[str, Any]:
    """Without the empty fields that tables add to rows that do not have them."""
    return {name: value for name, value in evaluator.items() if value is not None}


def _json_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _object(path, number, line)
    except UnicodeDecodeError as error:
        raise DamagedFile(f"{path} is not UTF-8") from error
    except OSError as error:
        raise DamagedFile(f"{path} cannot be read: {error.strerror}") from error


def _object(path: Path, number: int, line: str) -> Row:
    try:
        found = json.loads(line)
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DamagedFile(f"{path}, line {number}: it has half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{path}, line {number}: it is not JSON") from error
    if not isinstance(found, dict):
        raise DamagedFile(f"{path}, line {number}: it is not an object")
    return found


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    try:
        parquet = import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise DamagedFile(f"{path}: Parquet needs pyarrow: pip install 'redraft[learn]'") from error
    try:
        with parquet.ParquetFile(path) as table:
            rows: Iterable[Row] = (row for batch in table.iter_batches() for row in batch.to_pylist())
            yield from enumerate(rows, 1)
    except (OSError, ValueError) as error:  # pyarrow's errors are of both kinds
        raise DamagedFile(f"{path} is not a Parquet file: {type(error).__name__}") from error


def _place(path: Path) -> str:
    return "row" if path.suffix == ".parquet" else "line"


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    [first, *_] = error.errors(include_url=False, include_input=False)
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}"
