"""A client of the Redraft service, which drafts, critiques and refines text. It comes in two forms: Redraft, and
AsyncRedraft for asyncio.

>>> from redraft import Redraft
>>> with Redraft("http://127.0.0.1:8000") as client:
...     print(client.refine(prompt="Describe a sunrise over the sea.").text)
"""

from redraft.adapters import Adapter, Adapters, WholeAdapter
from redraft.async_client import AsyncRedraft
from redraft.batches import BatchResult
from redraft.client import Redraft
from redraft.errors import (
    Busy,
    ConnectionFailed,
    InvalidProxy,
    InvalidRequest,
    ProblemError,
    RedraftError,
    Unauthorized,
    UnexpectedAnswer,
)
from redraft.events import (
    CandidateAdded,
    CandidateEvaluated,
    Critiqued,
    Delta,
    GenerateEvent,
    ReasoningDelta,
    RefineEvent,
    RoundEnded,
    Started,
    TextBegun,
    TextDelta,
    TextReasoningDelta,
)
from redraft.jobs import AsyncJob, Job, JobStatus, Notice
from redraft.learning import LearningRun
from redraft.results import CritiqueResult, GenerateResult, Model, RefineResult, TaskSummary
from redraft.traces import Feedback, Trace, TraceSummary

__all__ = [
    "Adapter",
    "Adapters",
    "AsyncJob",
    "AsyncRedraft",
    "BatchResult",
    "Busy",
    "CandidateAdded",
    "CandidateEvaluated",
    "ConnectionFailed",
    "CritiqueResult",
    "Critiqued",
    "Delta",
    "Feedback",
    "GenerateEvent",
    "GenerateResult",
    "InvalidProxy",
    "InvalidRequest",
    "Job",
    "JobStatus",
    "LearningRun",
    "Model",
    "Notice",
    "ProblemError",
    "ReasoningDelta",
    "Redraft",
    "RedraftError",
    "RefineEvent",
    "RefineResult",
    "RoundEnded",
    "Started",
    "TaskSummary",
    "TextBegun",
    "TextDelta",
    "TextReasoningDelta",
    "Trace",
    "TraceSummary",
    "Unauthorized",
    "UnexpectedAnswer",
    "WholeAdapter",
]
