"""README and tutorial are true: every command and snippet is run against a plane that `ofp up` brought up.

That plane holds all records of the account that the pages ask about and hardly any others, so its answers are those of the demo;
positions, counts of records and hashes differ, and are what is learned from one output and put into the next command.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from ofp_platform.cli.environment import Environment
from ofp_platform.client import OfpClient, verify
from ofp_platform.registry.pack import pack_digest, shipped_pack
from ofp_platform.vocabulary.serving import GetFeaturesResponse
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.docs.fenced import Block, blocks, transcript
from ofp_platform_tests.oracle.demo_plane import fill_demo_plane, fill_rings

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
ADDRESS = "http://127.0.0.1:8000"
HASH = re.compile(r"\b[0-9a-f]{64}\b")
SHORT_HASH = re.compile(r":[0-9a-f]{12}\b")
PUBLISHED = re.compile(r":HASH +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
"""A dataset in a list, and when it was published."""
POSITION = re.compile(r"\b(\d{4}):(\d+)\b")
COUNTED = (
    "segments|records|applied|copies|failed|fail for a group|of another|mature|labelled|immature|rows|bytes"
    "|of [0-9,]+ decisions|decisions MATCH"
)
COUNT = re.compile(rf"\b[\d,]+ (?=({COUNTED})\b)")


@dataclass
class Reader:
    """Somebody who types what the pages say, in a folder of their own."""

    address: str
    variables: dict[str, str]
    hashes: dict[str, str] = field(default_factory=dict)
    shift: int = 0

    def key(self, name: str) -> str:
        """That of a principal of this machine."""
        return (Path(self.variables["OFP_HOME"]) / "keys" / f"{name}.key").read_text().strip()

    def shell(self, command: str) -> str:
        """What a command line prints; failures are part of it. `ofp` itself runs in this process: it starts faster."""
        command = self._as_here(command)
        given = None
        if command.startswith("ofp "):
            asked, _, command = command.partition(" | ")
            outcome = call(*shlex.split(asked)[1:], **self.variables)
            given = outcome.shown
            if not command:
                return given
        result = subprocess.run(
            ["bash", "-c", with_curl(command)], input=given, capture_output=True, text=True, timeout=60, check=False
        )
        return result.stdout + result.stderr

    def python(self, program: str) -> str:
        """What a snippet prints."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(self._as_here(program), "snippet", "exec"), {"__name__": "__main__"})
        return printed.getvalue()

    def _as_here(self, text: str) -> str:
        text = text.replace(ADDRESS, self.address).replace(".ofp/keys", f"{self.variables['OFP_HOME']}/keys")
        for names in (HASH, SHORT_HASH):
            text = names.sub(lambda found: self.hashes.get(found[0], found[0]), text)
        return POSITION.sub(lambda found: f"{found[1]}:{int(found[2]) + self.shift}", text)

    def expect(self, shown: str, got: str, where: str) -> None:
        """Hold an output against the one that the page shows, and learn what is called otherwise here."""
        assert alike(got) == alike(shown), f"{where}\n{got}"
        for names in (HASH, SHORT_HASH):
            self.hashes.update(zip(names.findall(shown), names.findall(got), strict=True))
        for (_, there), (_, here) in zip(POSITION.findall(shown), POSITION.findall(got), strict=True):
            self.shift = int(here) - int(there)


def alike(text: str) -> str:
    """An output without what depends on how many other records there are: hashes, positions, line breaks of JSON."""
    text = POSITION.sub("POSITION", SHORT_HASH.sub(":HASH", HASH.sub("HASH", text)))
    text = PUBLISHED.sub(":HASH TIME", text)
    text = re.sub(r'"offset": \d+', '"offset": N', text)
    text = re.sub(r"'/[^']*/training-set", "'HERE/training-set", text)
    text = re.sub(r"\b\d+\.\d+ (?=(MB|s)\b)", "N ", text)
    text = COUNT.sub("N ", text)
    return " ".join(text.split())


@pytest.fixture(scope="module")
def variables(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    fill_demo_plane(home, module_dsn)
    fill_rings(home, module_dsn)
    return {"OFP_HOME": str(home), "OFP_DATABASE_URL": module_dsn, "OFP_PROFILE": "demo"}


@pytest.fixture(scope="module")
def address(variables: dict[str, str]) -> Iterator[str]:
    command = [str(Path(sys.executable).with_name("ofp")), "up", "--no-dagster", "--port", "0"]
    environment = {**os.environ, **variables, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as town:
        assert town.stdout is not None
        said = []
        try:
            for line in town.stdout:
                said.append(line)
                if line.startswith("ready"):
                    break
            found = re.search(r"^HTTP service +(http://[\d.:]+)", "".join(said), re.MULTILINE)
            assert found, said
            as_the_demo_left_it(found[1], variables)
            yield found[1]
        finally:
            town.send_signal(signal.SIGINT)
            rest = town.stdout.read()
        assert town.wait() == 0, rest


def as_the_demo_left_it(address: str, variables: dict[str, str]) -> None:
    """What `make demo` does behind the projection, as far as the pages look at it."""
    assert call("decide", "--count", "1", "--url", address, **variables).code == 0
    for command in (("labels", "load"), ("archive", "run", "--to-head"), ("facts", "publish")):
        assert call(*command, **variables).code == 0


@pytest.fixture
def reader(address: str, variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    monkeypatch.chdir(tmp_path)
    return Reader(address, variables)


def runnable(page: Path) -> list[Block]:
    """The blocks but those that install, start or select something: `make ...` and `source ...`."""
    return [block for block in blocks(page) if not re.match(r"(make|source) ", block.text)]


def test_what_is_not_run_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in (README, TUTORIAL):
        for block in set(blocks(page)) - set(runnable(page)):
            assert block.language == "sh"
            for line in block.text.splitlines():
                program, argument = line.split()[:2]
                assert argument in (targets if program == "make" else {".venv/bin/activate"}), line


def test_the_first_request_of_the_readme(reader: Reader) -> None:
    curl, python, printed = runnable(README)
    answer = reader.shell(curl.text)
    features = GetFeaturesResponse.model_validate_json(answer).snapshot.by_key[0].by_group[0].features
    assert reader.python(python.text) == printed.text
    assert features["mean_amount_30d"] == printed.text.splitlines()[0]


def test_the_intent_of_the_api_page_is_built_and_shown(reader: Reader, variables: dict[str, str]) -> None:
    decisions, builds = reader.key("decisions"), reader.key("builds")
    asking = {"authorization": f"Bearer {decisions}"}
    page = httpx.get(f"{reader.address}/openapi.json", headers=asking, trust_env=False).json()
    content = page["paths"]["/v0/build_intents"]["post"]["requestBody"]["content"]
    with OfpClient(reader.address, token=builds) as ofp:
        run = ofp.submit_intent(content["application/json"]["example"])
        assert call("build", "run", run.run_key, **variables).code == 0
        outcome = ofp.build_run(run.run_key).outcome
        assert outcome is not None
        assert outcome["outcome"] == "MATCH"
        rebuilt = ofp.get_rebuilt_snapshot(str(outcome["feature_snapshot_hash"]))
    shown = call("snapshot", "show", rebuilt.feature_snapshot_hash, "--rebuilt", **variables)
    assert json.loads(shown.out) == json.loads(json.dumps(rebuilt.wire()))


def test_the_tutorial_from_its_first_line_to_its_last(reader: Reader) -> None:
    commands = 0
    printed = ""
    for block in runnable(TUTORIAL):
        where = f"docs/tutorial.md:{block.line}"
        if block.language == "python":
            printed = reader.python(block.text)
        elif block.language == "text":
            assert printed == block.text, where
        else:
            assert block.language == "console", where
            for command, shown in transcript(block):
                reader.expect(shown, reader.shell(command), f"{where}: {command}")
                commands += 1
    assert commands >= 10


def with_curl(command: str) -> str:
    """The command; on a machine without curl, with another program for the little that the pages ask of it."""
    if shutil.which("curl"):
        return command
    stand_in = (
        "import sys, httpx; data = sys.argv[sys.argv.index('-d') + 1] if '-d' in sys.argv else None; "
        "url = next(word for word in sys.argv if word.startswith('http:')); "
        "headers = dict(sys.argv[at + 1].split(': ', 1) for at, word in enumerate(sys.argv) if word == '-H'); "
        "print(httpx.request('POST' if data else 'GET', url, content=data, headers=headers, trust_env=False).text, end='')"
    )
    return f'curl() {{ {sys.executable} -c "{stand_in}" "$@"; }}\n{command}'


def test_the_response_that_the_tutorial_shows_is_a_real_one_of_today() -> None:
    shown = next(output for block in blocks(TUTORIAL) if block.language == "console" for _, output in transcript(block))
    response = GetFeaturesResponse.model_validate_json(shown)
    assert verify(response) in TUTORIAL.read_text(encoding="utf-8")
    profile = Environment(profile="demo").load_profile()
    assert response.provenance.context_pins == profile.context_pins
    assert response.provenance.run_config_digest == profile.run_config_digest
    assert response.provenance.feature_definition_set.digest == pack_digest(shipped_pack(profile.pack))


def test_the_readme_fits_on_a_screen_or_two() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert len(lines) < 90
    first_paragraph = "\n".join(lines).split("\n\n")[1]
    assert len(first_paragraph.splitlines()) <= 5
