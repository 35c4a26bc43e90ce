"""Who plays which part in a program. A writer, a critic and a judge may be one model or three: a model that judges its
own texts favours them (Panickssery et al. 2024, arXiv 2404.13076)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from service.engines.base import Engine
from service.errors import EngineUnavailable

CallRole = Literal["draft", "critique", "judge", "revise"]
"""What an engine call is made for."""


@dataclass(frozen=True, slots=True)
class Models:
    """The names of a program's models. ``candidate``: writes some of the first drafts (voices.py)."""

    writer: str
    critic: str
    judge: str
    candidate: str | None = None

    @classmethod
    def single(cls, model: str) -> "Models":
        return cls(model, model, model)

    def by_role(self) -> Mapping[str, str]:
        """The names by their roles, without those that nobody plays."""
        return {role: name for role, name in asdict(self).items() if name is not None}


@dataclass(frozen=True, slots=True)
class Roles:
    """A program's engines. The writer drafts and revises; ``candidate`` may write some of the first drafts."""

    writer: Engine
    critic: Engine
    judge: Engine
    candidate: Engine | None = None

    @classmethod
    def single(cls, engine: Engine) -> "Roles":
        return cls(engine, engine, engine)

    @property
    def models(self) -> Models:
        candidate = None if self.candidate is None else self.candidate.model
        return Models(self.writer.model, self.critic.model, self.judge.model, candidate)

    def of(self, role: CallRole) -> Engine:
        """The engine that such a call goes to."""
        match role:
            case "critique":
                return self.critic
            case "judge":
                return self.judge
            case "draft" | "revise":
                return self.writer

    def apart(self, role: CallRole) -> bool:
        """Whether the role's engine has other token ids than the writer's, and may fail without it."""
        return self.of(role).backend is not self.writer.backend

    async def check(self) -> None:
        """Raise EngineUnavailable or EngineDead, with the model's name, if one of the engines cannot serve. A candidate
        is not asked: the writer writes what it cannot."""
        for engine in {id(engine): engine for engine in (self.writer, self.critic, self.judge)}.values():
            try:
                await engine.check()
            except EngineUnavailable as error:
                raise type(error)(f"{engine.model} cannot serve: {error.detail}") from error
