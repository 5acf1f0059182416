"""Containers and the DAG of docs/examples call commands and options that exist."""

import runpy
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import click
import pytest
import yaml
from distributed.cli import dask_scheduler, dask_worker

from mvemo.pipeline import cli

ROOT = Path(__file__).parents[1]
DASK = {"scheduler": dask_scheduler.main, "worker": dask_worker.main}


def check_options(command: click.Command, arguments: list[str]) -> None:
    """Parse a command line without running the command."""
    if isinstance(command, click.Group):
        found = command.get_command(click.Context(command), arguments[0])
        assert found is not None, arguments[0]
        command, arguments = found, arguments[1:]
    command.make_parser(click.Context(command)).parse_args(args=list(arguments))


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]


@pytest.mark.parametrize("name", DASK)
def test_services_are_commands_of_dask(services, name):
    program, kind, *options = services[name]["entrypoint"]
    assert (program, kind) == ("dask", name)
    check_options(DASK[name], options)


def test_the_workers_find_the_scheduler_and_share_its_files(services):
    port = services["scheduler"]["entrypoint"][3]
    assert f"tcp://scheduler:{port}" in services["worker"]["entrypoint"]
    assert services["scheduler"]["expose"] == [port]
    assert services["worker"]["volumes"] == services["mvemo"]["volumes"]
    assert services["worker"]["deploy"]["replicas"] == 2
    comment = (ROOT / "deploy/compose.yaml").read_text().partition("x-mvemo")[0]
    text = " ".join(line.lstrip("# ").rstrip("\\") for line in comment.splitlines())
    check_options(cli.mvemo, shlex.split(text.partition("--rm mvemo ")[2]))


def test_the_container_has_no_rights_and_installs_the_extras(services):
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert "\nUSER 1000\n" in text
    extras = text.partition("mvemo[")[2].partition("]")[0].split(",")
    known = [line for line in (ROOT / "setup.cfg").read_text().splitlines() if line.endswith(" =")]
    assert {f"{extra} =" for extra in extras} <= set(known)
    assert services["mvemo"]["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}


def test_the_dag_calls_commands_of_mvemo(monkeypatch):
    called = []

    class Operator(SimpleNamespace):
        def __rshift__(self, other):
            called.extend([self, other])

    class Dag:
        def __init__(self, name, **options):
            assert options["max_active_runs"] == 1

        __enter__ = __exit__ = lambda self, *error: None

    for name in ("providers", "providers.standard", "providers.standard.operators"):
        monkeypatch.setitem(sys.modules, f"airflow.{name}", ModuleType(name))
    bash, sdk = ModuleType("bash"), ModuleType("sdk")
    bash.BashOperator, sdk.DAG = Operator, Dag
    monkeypatch.setitem(sys.modules, "airflow", ModuleType("airflow"))
    monkeypatch.setitem(sys.modules, "airflow.providers.standard.operators.bash", bash)
    monkeypatch.setitem(sys.modules, "airflow.sdk", sdk)
    runpy.run_path(str(ROOT / "docs/examples/airflow_songs.py"))
    assert [one.task_id for one in called] == ["predict", "tag"]
    for one in called:
        program, *arguments = shlex.split(one.bash_command)
        assert program == "mvemo"
        check_options(cli.mvemo, arguments)
