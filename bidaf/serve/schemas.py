"""What the API takes and gives: the source of /openapi.json."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bidaf.evaluation.evaluator import Prediction
from bidaf.serve.service import Question

MAX_ANSWERS = 20


def _encodable(text: str) -> str:
    """JSON's escapes can spell half a character, which no answer could be sent with."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character (a lone surrogate)") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]
Texts = Annotated[list[Text], Field(min_length=1)]
_STRICT = ConfigDict(extra="forbid", strict=True)


class AnswerRequest(BaseModel):
    """One question on one context, as many questions as contexts, or several questions on one context."""

    model_config = _STRICT | ConfigDict(
        json_schema_extra={"example": {"question": "Where does Dora live?", "context": "Dora lives in Rome."}}
    )
    question: Annotated[Text | Texts, Field(description="What is asked; a list for several.")]
    context: Annotated[Text | Texts, Field(description="The text that holds the answer; a list for several.")]
    weights: Annotated[str | None, Field(description="The weight set that answers; see `/model`.")] = None
    n_best: Annotated[int, Field(ge=1, le=MAX_ANSWERS, description="Number of answers per question.")] = 1

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if isinstance(self.context, list) and len(self.context) != self.count:
            raise ValueError(f"there are {len(self.context):,} contexts for {self.count:,} questions")
        return self

    @property
    def is_list(self) -> bool:
        """Whether the answer is a list too."""
        return isinstance(self.question, list) or isinstance(self.context, list)

    @property
    def count(self) -> int:
        """Number of questions."""
        return len(self.question) if isinstance(self.question, list) else 1

    def questions(self, default_weights: str) -> list[Question]:
        """Each question with its context."""
        asked = self.question if isinstance(self.question, list) else [self.question]
        contexts = self.context if isinstance(self.context, list) else [self.context] * len(asked)
        weights = self.weights or default_weights
        return [Question(each, context, weights, self.n_best) for each, context in zip(asked, contexts, strict=True)]


class Answer(BaseModel):
    """A span of the context. "No answer", of a model that knows it, is the empty text at 0 to 0."""

    answer: Annotated[str, Field(description="The text, character for character as in the context.")]
    score: Annotated[float, Field(description="Its probability, 0 to 1.")]
    start: Annotated[int, Field(description="Its first character in the context, counted in Unicode code points.")]
    end: Annotated[int, Field(description="The character after its last.")]


class AnswerResponse(Answer):
    """The answer to one question."""

    weights: Annotated[str, Field(description="The weight set that answered.")]
    answers: Annotated[list[Answer], Field(description="Up to `n_best` answers, the given one first.")]
    no_answer: Annotated[
        float | None, Field(description="The probability that there is none; null of a model that always has one.")
    ]

    @classmethod
    def of(cls, ranked: list[Prediction], asked: Question) -> AnswerResponse:
        """The `ranked` answers to a question, as far as they were wanted."""
        answers = [
            Answer(answer=each.text, score=each.probability, start=each.start, end=each.end)
            for each in ranked[: asked.n_best]
        ]
        no_answer = next((each.probability for each in ranked if each.is_empty), None)
        return cls(**answers[0].model_dump(), weights=asked.weights, answers=answers, no_answer=no_answer)


class ServedWeights(BaseModel):
    """One weight set."""

    made: Annotated[str, Field(description="How it was made.")]
    scores: Annotated[
        dict[str, float] | None, Field(description="Metric -> percent on the dev set; null where it was not scored.")
    ]


class ModelResponse(BaseModel):
    """What answers."""

    model: Annotated[str, Field(description="Name of the run or export.")]
    step: Annotated[int, Field(description="Training steps behind the weights.")]
    variant: Annotated[str, Field(description="Of the network.")]
    weights: Annotated[dict[str, ServedWeights], Field(description="The weight sets that can be asked, by name.")]
    default_weights: Annotated[str, Field(description="The one that answers where none is named.")]
    version: Annotated[str, Field(description="Of bidaf.")]
    card: Annotated[str, Field(description="The model card, in Markdown.")]


class ExplainRequest(BaseModel):
    """What the page asks."""

    model_config = _STRICT
    question: Text
    context: Text
    weights: Annotated[list[str], Field(min_length=1)]


class Health(BaseModel):
    """The server is up."""

    status: Annotated[str, Field(description="`ok`.")]


class Problem(BaseModel):
    """Why there is no answer."""

    error: Annotated[str, Field(description="What is wrong, and what to do.")]
