"""Who plays which part in a program. A writer, a critic and a judge may be one model or three: a model that judges its
own texts favours them (Panickssery et al. 2024, arXiv 2404.13076)."""

from dataclasses import dataclass
from typing import Literal

from service.engines.base import Engine
from service.errors import EngineUnavailable

CallRole = Literal["draft", "critique", "judge", "revise"]
"""What an engine call is made for."""


@dataclass(frozen=True, slots=True)
class Models:
    """The names of a program's models."""

    writer: str
    critic: str
    judge: str

    @classmethod
    def single(cls, model: str) -> "Models":
        return cls(model, model, model)


@dataclass(frozen=True, slots=True)
class Roles:
    """A program's engines. The writer drafts and revises."""

    writer: Engine
    critic: Engine
    judge: Engine

    @classmethod
    def single(cls, engine: Engine) -> "Roles":
        return cls(engine, engine, engine)

    @property
    def models(self) -> Models:
        return Models(self.writer.model, self.critic.model, self.judge.model)

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
        """Raise EngineUnavailable or EngineDead, with the model's name, if one of the engines cannot serve."""
        for engine in {id(engine): engine for engine in (self.writer, self.critic, self.judge)}.values():
            try:
                await engine.check()
            except EngineUnavailable as error:
                raise type(error)(f"{engine.model} cannot serve: {error.detail}") from error
