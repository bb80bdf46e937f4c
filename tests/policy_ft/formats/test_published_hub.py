"""The hub, played by a server on this machine: no network, and no hub's files, are needed."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest
from typer.testing import CliRunner

import policy_ft
from policy_ft.cli import app
from policy_ft.errors import UserError
from policy_ft.formats import hub
from policy_ft.formats.load import read_tokenizer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(BaseHTTPRequestHandler):
    """One repository, owner/policy, made of a directory; another, owner/secret, is gated."""

    root: Path

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        if "owner/secret" in self.path:
            self._send(403, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "no access"})
        elif self.path.startswith("/api/models/owner/policy"):
            files = [p.relative_to(self.root).as_posix() for p in self.root.rglob("*.*")]
            siblings = [{"rfilename": name} for name in files]
            info = {"id": "owner/policy", "sha": COMMIT, "siblings": siblings}
            if "/tree/" in self.path:
                info = [{"type": "file", "path": n, "size": 1, "oid": "0" * 40} for n in files]
            kind = {"Content-Type": "application/json"}
            self._send(200, json.dumps(info).encode() if with_body else b"", kind)
        elif self.path.startswith(f"/owner/policy/resolve/{COMMIT}/"):
            content = (self.root / self.path.split(f"{COMMIT}/", 1)[1]).read_bytes()
            etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
            marks = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
            self._send(200, content, marks, with_body=with_body)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no repo"})

    def _send(
        self, status: int, content: bytes, headers: dict[str, str], *, with_body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def served(tmp_path, monkeypatch) -> Iterator[Path]:
    """The directory that the hub shows as owner/policy."""
    root = tmp_path / "served"
    handler = type("Handler", (FakeHub,), {"root": root})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield root
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_policy_is_loaded_by_its_hub_id(served, lerobot_directory, tmp_path):
    lerobot_directory(served, "pi0")
    (served / "training_state.bin").write_bytes(b"a pickle")
    (served / "training_state").mkdir()
    (served / "training_state/optimizer_state.safetensors").write_bytes(b"as large as the weights")
    policy = policy_ft.load_policy("owner/policy")
    assert policy.config.family == "pi0"
    assert policy.provenance["published_format"] == "lerobot"
    assert not list((tmp_path / "cache").rglob("*.bin"))
    assert not list((tmp_path / "cache").rglob("optimizer*"))


def test_pulling_writes_a_directory_of_ones_own(served, lerobot_directory, tmp_path):
    lerobot_directory(served, "pi0")
    hub.pull("owner/policy", tmp_path / "mine")
    assert (tmp_path / "mine/model.safetensors").read_bytes() == (
        served / "model.safetensors"
    ).read_bytes()
    assert (tmp_path / "mine/tokenizer/tokenizer.json").is_file()
    with pytest.raises(UserError, match="Choose another directory"):
        hub.pull("owner/policy", tmp_path / "mine")


def test_pulling_may_be_of_a_few_files(served, lerobot_directory, tmp_path):
    lerobot_directory(served, "pi0")
    words = ["pull", "owner/policy", str(tmp_path / "mine"), "--only", "tokenizer/tokenizer.json"]
    assert CliRunner().invoke(app, words).exit_code == 0
    found = [p.name for p in (tmp_path / "mine").rglob("*.json") if ".cache" not in p.parts]
    assert found == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("repo_id", "words"),
    [
        ("owner/nothing", "Correct the id, or log in with `hf auth login`"),
        ("owner/secret", "Accept its terms on its page"),
    ],
)
def test_what_is_not_there_or_not_ours_is_told_apart(served, repo_id, words):
    with pytest.raises(UserError, match=words):
        hub.pull(repo_id)


def test_without_a_server_there_is_a_remedy_for_each_command(monkeypatch, tmp_path, capfd, caplog):
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited for a retry"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    fill = "filled with `policy-ft pull OWNER/NAME owner/policy"
    again = "Run it again where there is a network"
    for call, words, other in (
        (lambda: hub.pull("owner/policy"), f"{fill}`", again),
        (
            lambda: hub.pull_file("owner/policy", "tokenizer.json"),
            f"{fill} --only tokenizer.json`",
            again,
        ),
        (lambda: hub.pull("owner/policy", tmp_path / "new"), again, "policy-ft pull"),
        (lambda: hub.push(tmp_path, "owner/policy", is_private=True), again, "policy-ft pull"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert words in str(caught.value)
        assert other not in str(caught.value), "advice for another command"
    assert not caplog.records, "the library's own words"
    assert capfd.readouterr().err == ""


def test_a_repository_has_an_owner(tmp_path):
    with pytest.raises(UserError, match="the owner's name, a slash and the repository's name"):
        hub.push(tmp_path, "policy", is_private=True)
    with pytest.raises(UserError, match="the owner's name, a slash and the repository's name"):
        hub.pull("pi0_base", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_lies_below_a_directory_that_is_here_is_a_path(tmp_path, monkeypatch):
    (tmp_path / "ck/openpi_pi0").mkdir(parents=True)
    (tmp_path / "ck/tok").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("policy_ft.formats.hub.snapshot_download", pytest.fail)
    with pytest.raises(UserError, match=r"no such directory; .* did you mean 'openpi_pi0'\?"):
        policy_ft.load_policy("ck/openpi_pi")
    with pytest.raises(UserError, match=r"no file 'ck/tokk'; .* did you mean 'tok'\?"):
        read_tokenizer("ck/tokk")


def test_a_repository_that_is_not_there_may_be_meant_as_a_path(served):
    with pytest.raises(UserError) as caught:
        policy_ft.load_policy("owner/pi0_base")
    for words in ("no such path here", "RepositoryNotFound", "pull OWNER/NAME owner/pi0_base"):
        assert words in str(caught.value)


def test_a_repository_without_the_tokenizer_is_told(served):
    served.mkdir()
    (served / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"without tokenizer.json.*lists its files"):
        read_tokenizer("owner/policy")


@pytest.mark.parametrize("text", ["lerobot/pi0_base", "a/b-c.d"])
def test_hub_ids_have_two_parts(text):
    assert hub.is_hub_id(text)


@pytest.mark.parametrize("text", ["pi0_base", "/a/b", "a/b/c", "./a", "../a/b", "a/", "a b/c"])
def test_paths_are_no_hub_ids(text):
    assert not hub.is_hub_id(text)
