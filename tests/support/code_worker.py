"""A process that evaluates ``code_tests`` for the tests of the sandbox, so that they can run it as another user.

Each line of its input is a JSON object with ``text`` and the fields of ``code_tests``; each line of its output answers
one. The first line says its process id. What its sandboxes leave behind becomes its own child.
"""

import asyncio
import ctypes
import dataclasses
import json
import os
import sys
from typing import Any

from service.engines.conversation import Conversation, Turn
from service.engines.scripted import ScriptedEngine
from service.evaluators.base import Evaluation, Submission
from service.evaluators.code.sandbox import Sandbox
from service.evaluators.code.tests import CodeTests, TestedCode

PR_SET_CHILD_SUBREAPER = 36
REQUEST = Conversation(Turn("user", "Write the code."))


@dataclasses.dataclass(frozen=True)
class Unrated:
    prefill: str = ""

    def question(self, question: str) -> str:
        return question


async def evaluated(sandbox: Sandbox, text: str, **stated: Any) -> Evaluation:
    evaluator = TestedCode(CodeTests(**stated), sandbox)
    submission = Submission(text=text, request=REQUEST, shown=REQUEST, judge_prompt=Unrated(), engine=ScriptedEngine())
    return await evaluator.evaluate(submission)


async def main() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    sandbox = await Sandbox.find()
    print(json.dumps({"pid": os.getpid(), "uid": os.geteuid(), "found": sandbox is not None}), flush=True)
    while sandbox and (line := await asyncio.to_thread(sys.stdin.readline)):
        print(json.dumps(dataclasses.asdict(await evaluated(sandbox, **json.loads(line)))), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
