"""The compose files: accepted by the real tool in every combination, and as closed as they can be."""

import re
from itertools import product
from pathlib import Path

import pytest

from tests.deploy.commands import ROOT, compose, parse_by_vllm, run, services, tool

pytestmark = pytest.mark.deploy

FILES = [["docker-compose.yml"], ["docker-compose.yml", "docker-compose.gpu.yml"]]
PROFILES = [[], ["remote"]]
COMBINATIONS = list(product(FILES, PROFILES))
ALL = COMBINATIONS[-1]
SERVICES = ["redraft", "redraft-a", "redraft-b", "vllm", "postgres", "prometheus", "grafana"]


@pytest.mark.parametrize(("files", "profiles"), COMBINATIONS)
def test_docker_compose_accepts_it(files: list[str], profiles: list[str]) -> None:
    assert compose(files, profiles, "--quiet") == ""


def test_a_service_is_there_only_with_its_profile() -> None:
    assert services(FILES[0], []).keys() == {"redraft", "prometheus", "grafana"}
    assert services(FILES[0], ["remote"]).keys() == set(SERVICES)


@pytest.mark.parametrize("file", FILES[1])
def test_schema_of_compose_accepts_it(file: str) -> None:
    run(tool("check-jsonschema"), "--builtin-schema=vendor.compose-spec", file)


def test_schema_of_compose_refuses_what_is_wrong(tmp_path: Path) -> None:
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text((ROOT / "docker-compose.yml").read_text().replace("mem_limit:", "memory_limit:"))
    with pytest.raises(AssertionError, match="memory_limit"):
        run(tool("check-jsonschema"), "--builtin-schema=vendor.compose-spec", wrong)


@pytest.mark.parametrize(("files", "profiles"), COMBINATIONS)
def test_services_are_confined(files: list[str], profiles: list[str]) -> None:
    for name, service in services(files, profiles).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["mem_limit"]) > 0, name
        assert service["pids_limit"] > 0, name
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}, name


@pytest.mark.parametrize(("files", "profiles"), COMBINATIONS)
def test_services_wait_for_health_and_tell_theirs(files: list[str], profiles: list[str]) -> None:
    found = services(files, profiles)
    for name, service in found.items():
        assert {needed["condition"] for needed in service.get("depends_on", {}).values()} <= {"service_healthy"}, name
        # Redraft's own check is in its image.
        assert "test" in service.get("healthcheck", {}) or service["image"].startswith("redraft-"), name
    if "remote" in profiles:
        assert found["redraft-a"]["depends_on"].keys() == {"vllm", "postgres"}


@pytest.mark.parametrize(("files", "profiles"), COMBINATIONS)
def test_no_password_stands_in_an_environment(files: list[str], profiles: list[str]) -> None:
    for name, service in services(files, profiles).items():
        for variable, value in service.get("environment", {}).items():
            secret = re.search("(PASSWORD|TOKEN|KEYS?|SECRET)(_|$)", variable)
            assert not secret or value.startswith("/run/secrets/"), f"{name}: {variable}"


def test_vllm_takes_its_arguments() -> None:
    parse_by_vllm(*(services(files, ["remote"])["vllm"]["command"] for files in FILES))
    with pytest.raises(AssertionError, match="unrecognized arguments"):
        parse_by_vllm(["--no-such-argument"])


def test_a_model_on_gpus_wants_keys_and_has_a_gpu() -> None:
    found = services(*ALL)
    for name in ("redraft", "redraft-a", "redraft-b"):
        assert found[name]["environment"]["REDRAFT_ALLOW_ANONYMOUS"] == "false"
        assert found[name]["environment"]["REDRAFT_API_KEYS_FILE"] == "/run/secrets/api_keys"
        password = set() if name == "redraft" else {"postgres_password"}
        assert {secret["source"] for secret in found[name]["secrets"]} == {"api_keys", "hf_token"} | password
    for name in ("redraft", "vllm"):
        [device] = found[name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["capabilities"] == ["gpu"]
        assert found[name]["image"].startswith("redraft-gpu:")
        assert found[name]["build"]["target"] == "gpu"


@pytest.mark.parametrize("files", FILES)
def test_jobs_survive_their_container(files: list[str]) -> None:
    found = services(files, ["remote"])
    [volume] = [each for each in found["redraft"]["volumes"] if each["source"] == "store"]
    assert volume["type"] == "volume"
    assert Path(found["redraft"]["environment"]["REDRAFT_STORE"]).parent == Path(volume["target"])
    assert {found[name]["environment"]["REDRAFT_STORE"] for name in ("redraft-a", "redraft-b")} == {
        "postgresql://redraft@postgres/redraft"
    }


def test_only_the_replicas_reach_postgres() -> None:
    postgres = services(*ALL)["postgres"]
    assert re.fullmatch(r"postgres:\d+\.\d+-bookworm", postgres["image"])
    assert "ports" not in postgres
    assert postgres["user"] == "999:999"
    [data] = postgres["volumes"]
    assert (data["type"], data["target"]) == ("volume", "/var/lib/postgresql/data")


@pytest.mark.parametrize(("files", "profiles"), COMBINATIONS)
def test_folders_that_are_mounted_exist(files: list[str], profiles: list[str]) -> None:
    for service in services(files, profiles).values():
        for volume in service.get("volumes", []):
            assert volume["type"] != "bind" or Path(volume["source"]).exists(), volume["source"]
