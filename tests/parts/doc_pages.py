"""The fenced blocks of a page of documentation, and running them as a reader would, from the top to the bottom.

What a fence means, here and for whoever writes a page:

| fence | what the test does |
|---|---|
| ` ```LANGUAGE title="conf/a.yaml" ` | writes the block to that file in the page's folder |
| ` ```python ` | runs it; all such blocks of a page are one program, in one interpreter |
| ` ```console ` | runs each `$ ` line with bash and compares what follows with its output; `... &` is a server |
| ` ```text ` right after one of these two | is the block's output |
| ` ```yaml `, ` ```json ` without title | parses it |
| any, after `<!-- not run: why -->` | nothing |

`...` in an output stands for anything; on a line of its own for any number of lines, also none. The ports of `PORTS`
are replaced by free ones.
"""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from parts.fixtures import Servers
from parts.process import Process

ROOT = Path(__file__).resolve().parents[2]
PORTS = ("8000", "9001", "9002", "9003", "9004", "18000")
LONGEST = 60.0  # seconds a block may take

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_TITLE = re.compile(r'title="([^"]+)"')
_SKIP = re.compile(r"<!-- not run: (.+?) -->\s*\Z", re.DOTALL)

_INTERPRETER = """
import contextlib, io, json, sys, traceback
names = {"__name__": "__main__"}
for line in sys.stdin:
    out, ok = io.StringIO(), True
    with contextlib.redirect_stdout(out):
        try:
            exec(compile(json.loads(line), "<page>", "exec"), names)
        except BaseException:
            ok = False
            traceback.print_exc(file=out)
    sys.__stdout__.write(json.dumps([ok, out.getvalue()]) + "\\n")
    sys.__stdout__.flush()
"""


@dataclass(frozen=True)
class Block:
    """One fence. `follows`: nothing but blank lines stands between it and the fence before."""

    language: str
    title: str
    text: str
    line: int
    skipped: str
    follows: bool


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a Markdown file in order."""
    text, end = page.read_text(encoding="utf-8"), 0
    for found in _FENCE.finditer(text):
        title = _TITLE.search(found["options"])
        skip = _SKIP.search(text, end, found.start())
        lines = found["text"].splitlines()
        yield Block(
            language=found["language"],
            title=title[1] if title else "",
            text="\n".join(line.removeprefix(found["indent"]) for line in lines) + "\n",
            line=text.count("\n", 0, found.start()) + 1,
            skipped=skip[1] if skip else "",
            follows=bool(end) and not text[end : found.start()].strip(),
        )
        end = found.end()


class Reader:
    """Somebody who follows one page in an empty folder."""

    def __init__(self, page: Path, folder: Path, servers: Servers, free_port: Callable[[], int]) -> None:
        self._page = page
        self._folder = folder
        self._servers = servers
        self._free_port = free_port
        self._ports: dict[str, str] = {}
        self._env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "120",
        }
        self._program: subprocess.Popen[str] | None = None
        self._output: str | None = None

    def follow(self) -> int:
        """Do what the page says; how many blocks were run. AssertionError says which one does not hold."""
        count = 0
        try:
            for block in blocks(self._page):
                before, self._output = self._output, None
                if not block.skipped:
                    count += self._do(block, before if block.follows else None)
        finally:
            self._end_program()
        return count

    def _do(self, block: Block, before: str | None) -> bool:
        text = self._with_ports(block.text)
        if block.title:
            target = self._folder / block.title
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
            return False
        match block.language:
            case "python":
                self._output = self._python(block, text)
                return True
            case "console":
                for command, expected in _commands(text):
                    self._console(block, command, expected)
                return True
            case "text" if before is not None:
                self._compare(block, text, before)
            case "yaml":
                list(yaml.safe_load_all(text))
            case "json":
                json.loads(text)
        return False

    def _python(self, block: Block, text: str) -> str:
        if self._program is None:
            self._program = subprocess.Popen(
                [sys.executable, "-c", _INTERPRETER],
                cwd=self._folder,
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._program.stdin
        assert self._program.stdout
        self._program.stdin.write(json.dumps(text) + "\n")
        self._program.stdin.flush()
        ok, output = json.loads(self._program.stdout.readline())
        assert ok, self._at(block, output)
        return str(output)

    def _console(self, block: Block, command: str, expected: str) -> None:
        if command.endswith("&"):
            log = self._folder / f".server-{block.line}-{len(list(self._folder.glob('.server-*')))}.log"
            server = self._servers.keep(Process(["bash", "-c", command[:-1]], log, self._env))
            for port in set(self._ports.values()) & set(re.findall(r"\d+", command)):
                server.wait_for(lambda port=port: _accepts(int(port)), f"port {port}")  # type: ignore[misc]
            return
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self._folder,
            env=self._env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST,
        )
        if expected:
            self._compare(block, expected, done.stdout)
        else:
            assert done.returncode == 0, self._at(block, done.stdout)

    def _compare(self, block: Block, expected: str, actual: str) -> None:
        assert _pattern(expected).fullmatch(actual.strip() + "\n"), self._at(
            block, f"the page says:\n{expected}\nthe output is:\n{actual}"
        )

    def _with_ports(self, text: str) -> str:
        return re.sub(rf"\b({'|'.join(PORTS)})\b", lambda found: self._port(found[0]), text)

    def _port(self, printed: str) -> str:
        """Chosen when it is first needed: the longer a free port waits, the likelier somebody else takes it."""
        if printed not in self._ports:
            self._ports[printed] = str(self._free_port())
        return self._ports[printed]

    def _at(self, block: Block, what: str) -> str:
        return f"{self._page.name}:{block.line}: {what}"

    def _end_program(self) -> None:
        program, self._program = self._program, None
        if program is None:
            return
        with program:
            assert program.stdin
            program.stdin.close()
            try:
                program.wait(10)
            except subprocess.TimeoutExpired:
                program.kill()
                raise


def _commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, expected output) of each `$ ` line; a command goes on after a backslash."""
    for part in re.split(r"^\$ ", text.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        yield command.strip(), expected.strip()


def _pattern(expected: str) -> re.Pattern[str]:
    """`...` on a line of its own is any number of lines, within a line any text."""
    lines = expected.strip().splitlines()
    texts = [".*?".join(map(re.escape, line.split("..."))) + "\n" for line in lines]
    return re.compile(
        "".join(".*?" if line == "..." else text for line, text in zip(lines, texts, strict=True)), re.DOTALL
    )


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return False
        return bool(probe.getsockname() != probe.getpeername())  # a socket may happen to meet itself
