"""The CPU image: really built, and its process really started, as docker-compose.yml does."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from bench.harness.servers import free_port
from tests.deploy.commands import services
from tests.deploy.images import BUILD_SECONDS, Container, Storage, build, running

pytestmark = [pytest.mark.deploy, pytest.mark.engine, pytest.mark.timeout(BUILD_SECONDS)]

TOOLS = ("buildah", "mmdebstrap", "podman", "runc")
READY_SECONDS = 180
VIRTUAL = {"proc", "tmpfs", "mqueue", "devpts", "sysfs", "cgroup", "cgroup2"}
STORY = {"prompt": "Tell a very long story.", "sampling": {"max_tokens": 200, "seed": 1}, "search": {"rounds": 0}}


@pytest.fixture(scope="module")
def storage() -> Iterator[Storage]:
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        reason = f"an image is built by root, with {', '.join(TOOLS)}; missing: {missing}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with TemporaryDirectory(prefix="redraft-image-", dir="/var/tmp", ignore_cleanup_errors=True) as folder:
        storage = Storage(Path(folder))
        try:
            build(storage)
            yield storage
        finally:  # else what a failed build has mounted stays
            storage.buildah("rm", "--all")
            storage.buildah("rmi", "--all", "--force", seconds=300)


@pytest.fixture(scope="module")
def container(storage: Storage) -> Iterator[Container]:
    with running(storage, "redraft") as container:
        until_ready(container)
        yield container


def until_ready(container: Container, path: str = "/health/ready") -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and container.process.poll() is None:
        try:
            if httpx.get(f"{container.url}{path}").status_code == 200:
                return
        except httpx.TransportError:
            pass  # it does not listen yet
        time.sleep(0.2)
    pytest.fail(f"the container did not get ready:\n{container.said()}")


def test_image_says_what_it_is_and_how_it_is_run(storage: Storage) -> None:
    found = storage.inspected()
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["tini", "--", "python", "-m", "service"]
    assert config["Volumes"].keys() == {"/var/cache/redraft/models", "/var/cache/redraft/compile"}
    assert config["Labels"]["org.opencontainers.image.title"] == "Redraft"
    assert config["Labels"]["org.opencontainers.image.revision"] == "checked"
    assert found["Healthcheck"]["Test"][0] == "CMD"


def test_service_runs_below_an_init_without_rights(container: Container) -> None:
    assert container.shell("id -u; id -g").split() == ["10001", "10001"]
    assert container.shell("tr '\\0' ' ' </proc/1/cmdline").strip() == "tini -- python -m service serve"
    children = container.shell("cat /proc/1/task/1/children").split()
    for process in ("1", *children):
        status = dict(line.split(":", 1) for line in container.shell(f"cat /proc/{process}/status").splitlines())
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"].strip() == "1"
    assert container.shell(f"tr '\\0' ' ' </proc/{children[0]}/cmdline").strip() == "python -m service serve"


def test_processes_without_a_parent_leave_no_zombies(container: Container) -> None:
    container.shell("for number in 1 2 3; do (sleep 0.1 &) done; sleep 1")
    assert container.shell("grep -l '^State:.Z' /proc/[0-9]*/status || true") == ""


def test_health_check_of_the_image_succeeds(container: Container) -> None:
    check = container.storage.inspected()["Healthcheck"]["Test"]
    container.storage.podman("exec", container.name, *check[1:])


def test_image_has_the_page(container: Container) -> None:
    page = httpx.get(f"{container.url}/")
    [script] = re.findall(r'src="(assets/[^"]+)"', page.text)

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert httpx.get(f"{container.url}/{script}").status_code == 200


def test_image_has_no_build_tools_and_nothing_of_the_build(container: Container) -> None:
    assert container.shell("command -v cc gcc g++ make git pip pip3 || true") == ""
    assert container.shell("ls -A /root /var/lib/apt/lists /tmp | grep -c pip || true").strip() == "0"
    for left in ("/etc/pip.conf", "/run/secrets/pip.conf", "/cpu.lock", "/root/.cache"):
        assert container.shell(f"test ! -e {left} && echo none").strip() == "none"


@pytest.mark.parametrize("path", ["/app", "/opt/models", "/opt/redraft", "/etc", "/var", "/var/cache/redraft"])
def test_root_is_read_only(container: Container, path: str) -> None:
    said = container.shell(f"touch {path}/written 2>&1 || true")
    assert "Read-only file system" in said


def test_nothing_can_be_written_but_volumes_and_temporary_files(container: Container) -> None:
    mounts = [line.split() for line in container.shell("cat /proc/1/mounts").splitlines()]
    disks = {where for _, where, kind, options, *_ in mounts if options.startswith("rw") and kind not in VIRTUAL}
    assert disks == {"/var/cache/redraft/models", "/var/cache/redraft/compile"}


def test_refines_with_the_embedded_model_of_the_image(container: Container) -> None:
    body: dict[str, Any] = {
        "prompt": "Describe a sunrise over the sea.",
        "evaluators": [{"type": "length", "unit": "words", "max": 30}],
        "search": {"rounds": 1},
        "sampling": {"max_tokens": 60, "seed": 1},
    }
    response = httpx.post(f"{container.url}/v1/refine", json=body, timeout=60)
    assert response.status_code == 200, response.text
    assert response.json()["model"] == "SmolLM2-135M-Instruct"
    assert response.json()["text"]
    assert response.json()["usage"]["by_role"].keys() >= {"draft", "judge"}
    assert "Converting" not in container.said()  # it was when the image was built


def test_code_tests_are_refused_where_the_container_has_no_user_namespaces(container: Container) -> None:
    assert "no sandbox" in container.said()
    body = {
        "prompt": "Add.",
        "candidate": "x",
        "judge": False,
        "evaluators": [{"type": "code_tests", "tests": "assert x"}],
    }
    response = httpx.post(f"{container.url}/v1/critique", json=body)
    assert response.status_code == 422
    assert "bubblewrap" in response.text


def test_code_tests_run_where_the_container_has_user_namespaces(storage: Storage) -> None:
    program = """
import asyncio
from service.evaluators.code.sandbox import Sandbox, SandboxLimits
async def ask():
    sandbox = await Sandbox.find()
    print((await sandbox.run("print(6 * 7)", None, SandboxLimits(), client=ask)).output)
asyncio.run(ask())
"""
    options = ["--security-opt=seccomp=unconfined", "--security-opt=unmask=ALL", "--entrypoint=python"]
    with running(storage, "sandboxed", *options, arguments=["-c", program]) as container:
        assert container.process.wait(60) == 0
        assert "b'42\\n'" in container.said()


async def test_sigterm_drains_20_requests_and_loses_none(storage: Storage) -> None:
    with running(storage, "draining") as container:
        await asyncio.to_thread(until_ready, container)
        async with httpx.AsyncClient(base_url=container.url, timeout=120) as client:
            running_ones = [asyncio.ensure_future(client.post("/v1/refine", json=STORY)) for _ in range(20)]
            while "redraft_requests_in_progress 20.0" not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.02)
            assert not any(request.done() for request in running_ones)
            await asyncio.to_thread(container.signal, "TERM")
            while (ready := await client.get("/health/ready")).status_code == 200:
                await asyncio.sleep(0.02)
            refused = await client.post("/v1/refine", json=STORY)
            answers = await asyncio.gather(*running_ones)
        assert ready.json()["code"] == "draining"
        assert (refused.status_code, refused.json()["code"]) == (503, "draining")
        assert [answer.status_code for answer in answers] == [200] * 20
        assert all(answer.json()["text"] for answer in answers)
        assert await asyncio.to_thread(container.process.wait, 60) == 0


def test_a_replica_asks_a_vllm_server_of_the_same_image(storage: Storage) -> None:
    """What the profile remote of docker-compose.yml starts, but for its Postgres and the network between the two."""
    composed = services(["docker-compose.yml"], ["remote"])
    vllm, replica = composed["vllm"], composed["redraft-a"]["environment"]
    replica = {name: value for name, value in replica.items() if not name.startswith("REDRAFT_STORE")}
    port = free_port()
    serving = [f"--entrypoint={json.dumps(vllm['entrypoint'])}", *variables(vllm["environment"])]
    arguments = [*vllm["command"], "--host=127.0.0.1", f"--port={port}"]
    with running(storage, "vllm", *serving, arguments=arguments, port=port) as server:
        until_ready(server, "/health")
        asking = variables({**replica, "REDRAFT_ENGINE_URLS": f"{server.url}/v1"})
        with running(storage, "replica", *asking) as container:
            until_ready(container)
            # Only token ids have a perplexity: the replica has found the server's tokenizer.
            sea = "The sea was calm in the morning, and small waves ran up the beach. Nobody was there to see them yet."
            body = {"prompt": "Describe the sea.", "candidate": sea, "evaluators": [{"type": "perplexity"}]}
            response = httpx.post(f"{container.url}/v1/critique", json=body, timeout=60)
    assert response.status_code == 200, response.text
    [perplexity, judge] = response.json()["evaluations"]
    assert (perplexity["evaluator"], judge["evaluator"]) == ("perplexity", "judge")
    assert perplexity["error"] is None
    assert 0 < perplexity["score"] < 1


def variables(environment: Mapping[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in environment.items()]


def test_without_keys_it_does_not_serve_the_network(storage: Storage) -> None:
    with running(storage, "open", "--env=REDRAFT_HOST=0.0.0.0") as container:
        try:
            assert container.process.wait(60) == 1
        except subprocess.TimeoutExpired:
            pytest.fail("it serves anyone")
        assert "no keys are configured" in container.said()
