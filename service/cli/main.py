"""The command line: ``python -m service [serve | settings | prepare | refine | generate | batch | jobs | …]``."""

import argparse
import asyncio

from pydantic import ValidationError
from pydantic_settings import SettingsError

from service.app import McpUnavailable, TracingUnavailable, open_toolbox
from service.calibration.store import CalibrationError
from service.cli import ask, backup, calibrate, demo, jobs, learn, learn_arguments, traces
from service.cli.server import OTHER_FILES, Server, allow_open_files, configure_logging
from service.cli.standard_streams import Output, say
from service.engines.local import bundled
from service.evaluators.external.plugins import PluginError
from service.fleet import StartEngine, start_engine
from service.settings import PREFIX, Settings
from service.signatures import WebhookMisconfigured
from service.store.errors import StoreMisconfigured
from service.tasks.task import TaskError


def main() -> int:
    """Run a command; returns its exit code."""
    try:
        return _run()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # of what only prints, such as settings
        Output().close()
        return 1


def _run() -> int:
    parser = argparse.ArgumentParser(prog="python -m service", description="Redraft: draft, critique, refine.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="serve over HTTP (the default)")
    commands.add_parser("settings", help="print every setting, its default and its meaning")
    commands.add_parser("prepare", help="convert the embedded model ahead of the first start")
    backup.add_arguments(commands.add_parser("backup", help="copy the store's file while the service runs"))
    ask.add_refine_arguments(commands.add_parser("refine", help="refine a text on a running service"))
    ask.add_generate_arguments(commands.add_parser("generate", help="write a text on a running service"))
    ask.add_batch_arguments(commands.add_parser("batch", help="send many requests to a running service"))
    calibrate.add_arguments(
        commands.add_parser("calibrate", help="measure a running service's judge on pairs of your own")
    )
    jobs.add_list_arguments(commands.add_parser("jobs", help="list the background jobs of a running service"))
    jobs.add_job_arguments(commands.add_parser("watch", help="show what happens in a background job, and its text"))
    jobs.add_job_arguments(commands.add_parser("cancel", help="end a background job with its best text so far"))
    jobs.add_notice_arguments(commands.add_parser("notice", help="show what became of the notice of a job's end"))
    traces.add_list_arguments(commands.add_parser("traces", help="list the stored traces of a running service"))
    traces.add_preference_arguments(
        commands.add_parser("preferences", help="print pairs of better and worse texts, for training")
    )
    learn_arguments.add_arguments(commands.add_parser("learn", help="learn from graded texts: train, examine, promote"))
    demo.add_arguments(commands.add_parser("demo", help="refine an example on a running service and show its rounds"))
    arguments = parser.parse_args()
    match arguments.command:
        case "settings":
            return print_settings()
        case "prepare":
            return prepare()
        case "backup":
            return backup.run(arguments)
        case "refine":
            return ask.refine(arguments)
        case "generate":
            return ask.generate(arguments)
        case "batch":
            return ask.batch(arguments)
        case "calibrate":
            return calibrate.run(arguments)
        case "jobs":
            return jobs.list_jobs(arguments)
        case "watch":
            return jobs.watch(arguments)
        case "cancel":
            return jobs.cancel(arguments)
        case "notice":
            return jobs.notice(arguments)
        case "traces":
            return traces.list_traces(arguments)
        case "preferences":
            return traces.print_preferences(arguments)
        case "learn":
            return learn.run(arguments)
        case "demo":
            return demo.run(arguments)
        case _:
            return serve()


def serve(start: StartEngine = start_engine) -> int:
    """Serve until SIGTERM or SIGINT; 1 if the settings, a task file, a plugin or the engine are at fault."""
    try:
        settings = Settings()
        configure_logging(settings.log_level)
        server = Server(settings, asyncio.run(open_toolbox(settings)), start)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            setting, *path = problem["loc"] or ("",)
            where = ".".join([f"{PREFIX}{setting}".upper(), *map(str, path)]) + ": " if setting else ""
            say(f"Cannot start: {where}{problem['msg'].removeprefix('Value error, ')}")
        return 1
    except (
        SettingsError,
        TaskError,
        WebhookMisconfigured,
        PluginError,
        TracingUnavailable,
        CalibrationError,
        StoreMisconfigured,
        McpUnavailable,
    ) as error:
        say(f"Cannot start: {error}")
        return 1
    allow_open_files(settings.max_connections + OTHER_FILES)
    asyncio.run(server.serve())
    return 1 if server.engine_failed else 0


def print_settings() -> int:
    for name, default, meaning in Settings.table():
        print(f"{name:32} {default:14} {meaning}")  # noqa: T201 - it is what the command is for
    return 0


def prepare() -> int:
    try:
        say(f"The embedded model is ready in {bundled.prepare()}")
    except bundled.WeightsMissing as error:
        say(f"Cannot prepare: {error}")
        return 1
    return 0
