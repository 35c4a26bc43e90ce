"""The models that requests may name, and who plays which role in a request."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from service.errors import FieldError, wrong_fields
from service.refinement.roles import Models
from service.wire.requests import CommonFields, CritiqueRequest, GenerateRequest, RefineRequest


@dataclass(frozen=True, slots=True)
class ServedModels:
    """The models by their names.

    names: the main model's first.
    critic, judge: the operator's choice for requests that make none; by default the writer.
    resolve: gives the name of the weights that answer for a model now. A model whose weights change as it learns
        neither criticizes nor judges by default.
    draw_candidate: gives the candidate for the place of such weights, if the next program is to try one.
    """

    names: tuple[str, ...]
    critic: str | None = None
    judge: str | None = None
    resolve: Callable[[str], str] = lambda model: model
    draw_candidate: Callable[[str], str | None] = lambda model: None

    @property
    def main(self) -> str:
        return self.names[0]

    @property
    def needed(self) -> Models:
        """Without these the service is not ready."""
        return Models(self.main, self.critic or self.main, self.judge or self.main)

    def of(self, request: CommonFields) -> Models:
        """Who plays which role in a request. InvalidRequest names every name that is wrong."""
        roles = dict(request.models) if isinstance(request, CritiqueRequest | RefineRequest) else {}
        stated = {"model": request.model, **{f"models.{role}": name for role, name in roles.items()}}
        reason = f"there is no such model; there are {', '.join(self.names)}"
        wrong = [FieldError(field, reason) for field, name in stated.items() if name not in (None, *self.names)]
        writer = roles.get("writer") or request.model or self.main
        if request.model not in (None, writer) and not wrong:
            wrong = [FieldError("models.writer", f"model names another writer, {request.model}")]
        if wrong:
            raise wrong_fields(wrong)
        if isinstance(request, GenerateRequest):
            return self.single(writer)
        default = writer if self.resolve(writer) == writer else self.main
        critic, judge = roles.get("critic") or self.critic or default, roles.get("judge") or self.judge or default
        return Models(*map(self.resolve, (writer, critic, judge)))

    def with_candidate(self, models: Models, request: RefineRequest) -> Models:
        """The models of a request, now and then with a candidate if the writer is a model that learns."""
        writer = request.models.writer or request.model or self.main
        return (
            models if self.resolve(writer) == writer else replace(models, candidate=self.draw_candidate(models.writer))
        )

    def single(self, model: str) -> Models:
        """One model that plays all roles."""
        return Models.single(self.resolve(model))
