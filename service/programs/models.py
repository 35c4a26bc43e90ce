"""The models that requests may name, and who plays which role in a request."""

from dataclasses import dataclass

from service.errors import FieldError, wrong_fields
from service.refinement.roles import Models
from service.wire.requests import CommonFields, CritiqueRequest, GenerateRequest, RefineRequest


@dataclass(frozen=True, slots=True)
class ServedModels:
    """``names``: the main model's first. ``critic``, ``judge``: the operator's choice for requests that make none; by
    default the writer."""

    names: tuple[str, ...]
    critic: str | None = None
    judge: str | None = None

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
            return Models.single(writer)
        critic = roles.get("critic") or self.critic or writer
        return Models(writer, critic, roles.get("judge") or self.judge or writer)
