"""Who plays which part in a program. A writer, a critic and a judge may be one model or three: a model that judges its
own texts favours them (Panickssery et al. 2024, arXiv 2404.13076)."""

from dataclasses import dataclass
from typing import Literal

from service.engines.base import Engine

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
