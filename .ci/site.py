"""What the site has beyond docs/: pages made from the code and from files beside it, and links in place of paths."""

from __future__ import annotations

import ast
import inspect
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/embedqueue/embedqueue"
#: Files outside docs/ that are pages, and where.
ELSEWHERE = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "tests/README.md": "project/tests.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/results/report.md": "benchmarks/results/report.md",
    "README.md": "index.md",
}
#: Names of files amid text, as the pages have them: a path from the root, in backticks, perhaps with a heading behind.
_CITED = re.compile(r"(?<![\[`])`((?:docs/[\w/.-]+|[A-Z]{4,}|tests/README|benchmarks/[\w/]+)\.md)`(?!\])")
_LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the pictures that they show; a page that the navigation lacks comes last."""
    named = set(_leaves(config.nav))
    how_to = next(each["How to"] for each in config.nav if "How to" in each)
    how_to += [
        each.src_uri for each in files.documentation_pages() if "/" not in each.src_uri and each.src_uri not in named
    ]
    made = {
        "reference/api.md": _api(),
        "reference/embedders.md": _embedders(),
        "reference/errors.md": _errors(),
        "reference/options.md": "# Options\n" + _section("README.md", "Options"),
        "reference/settings.md": "# Settings\n" + _section("docs/servers.md", "Settings"),
        "reference/keys.md": "# Keys in Redis\n" + _section("docs/how-it-works.md", "Keys in Redis"),
        "reference/commands.md": _commands(),
        "reference/findings.md": _findings(),
        "decisions/index.md": _decisions(),
    }
    made |= {page: (ROOT / path).read_text("utf-8") for path, page in ELSEWHERE.items() if path != "README.md"}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    for picture in (ROOT / "benchmarks" / "results").glob("*.png"):
        files.append(File.generated(config, f"benchmarks/results/{picture.name}", abs_src_path=str(picture)))
    return files


def _leaves(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for each in nav.values() if isinstance(nav, dict) else nav:
            yield from _leaves(each)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn paths of files into links to their pages, or into the repository where they are none."""
    here = page.file.src_uri
    origin = next((path for path, where in ELSEWHERE.items() if where == here and where != "index.md"), f"docs/{here}")
    if here in ("reference/options.md", "reference/settings.md", "reference/keys.md"):
        origin = "README.md" if "options" in here else "docs/servers.md"
    quiet = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    quiet[::2] = [_linked(part, here, origin, files) for part in quiet[::2]]
    return "".join(quiet)


def _linked(text: str, here: str, origin: str, files: Files) -> str:
    text = text.replace("../README.md#options", "../docs/reference/options.md")

    def target(path: str) -> str:
        uri = ELSEWHERE.get(path) or path.removeprefix("docs/")
        found = files.get_file_from_path(uri) if path.startswith("docs/") or path in ELSEWHERE else None
        return posixpath.relpath(uri, posixpath.dirname(here) or ".") if found else f"{REPOSITORY}/blob/main/{path}"

    def cited(found: re.Match[str]) -> str:
        return f"[{_title(found[1])}]({target(found[1])})"

    def link(found: re.Match[str]) -> str:
        if re.match(r"[a-z]+:", found[1]) or (origin == f"docs/{here}" and not found[1].startswith("../")):
            return found[1]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), found[1]))
        return posixpath.relpath(path, posixpath.dirname(here)) if path.endswith(".png") else target(path)

    text = re.sub(rf"{REPOSITORY}/blob/main/([\w/.-]+\.md)", lambda found: target(found[1]), text)
    return _CITED.sub(cited, _LINK.sub(link, text))


def _title(path: str) -> str:
    """The heading of a file."""
    there = ROOT / path
    found = re.match(r"# (.+)", there.read_text("utf-8")) if there.exists() else None
    return found[1].replace("`", "") if found else path


def _section(path: str, heading: str) -> str:
    whole = (ROOT / path).read_text("utf-8")
    section = re.split(r"^## ", whole.partition(f"\n## {heading}\n")[2], flags=re.MULTILINE)[0]
    return section + "\n".join(re.findall(r"^\[[^\]]+\]: \S+$", whole, flags=re.MULTILINE))


def _directive(thing: Any) -> str:
    return f"::: {thing.__module__}.{thing.__qualname__}\n"


def _api() -> str:
    import embedqueue
    from embedqueue import testing

    parts = ["# Python", "All of this is imported from `embedqueue`; the errors have [a page of their own](errors.md)."]
    constants = []
    for name in embedqueue.__all__:
        thing = getattr(embedqueue, name)
        if inspect.isclass(thing) and not issubclass(thing, BaseException) and ".embedders" not in thing.__module__:
            parts.append(_directive(thing))
        elif name.isupper():
            constants.append(f"| `{name}` | `{thing!r}` |")
    parts += ["## Constants", "\n".join(["| name | value |", "|---|---|", *constants])]
    parts += ["## For your tests", "From `embedqueue.testing`; [testing](../testing.md) shows them at work."]
    parts += [_directive(thing) for thing in (testing.FakeEmbedder, testing.eager_queue)]
    return "\n\n".join(parts)


def _embedders() -> str:
    from embedqueue import embedders

    parts = ["# Embedders", "All of this is imported from `embedqueue.embedders`. [Recipes](../providers-howto.md)."]
    return "\n\n".join([*parts, *(_directive(getattr(embedders, name)) for name in embedders.__all__)])


def _errors() -> str:
    import embedqueue
    from embedqueue.values import errors

    parts = ["# Errors", "Imported from `embedqueue`. Each is an `EmbedQueueError`."]
    for name in embedqueue.__all__:
        if inspect.isclass(thing := getattr(errors, name, None)) and issubclass(thing, BaseException):
            parts.append(_directive(thing))
    return "\n\n".join(parts)


def _commands() -> str:
    from embedqueue.cli import cli

    codes = inspect.getdoc(__import__("embedqueue.cli").cli) or ""
    text = ["# Commands", codes.partition("\n\n")[2], "[By examples](../command-line.md)."]
    return "\n\n".join([*text, *_command(cli, "embedqueue", 2)])


def _command(command: Any, name: str, level: int) -> Iterator[str]:
    import click

    context = click.Context(command, info_name=name)
    if not isinstance(command, click.Group) or level == 2:
        help_text = inspect.cleandoc(command.help or "").replace("\b\n", "").replace("\f", "")
        yield f"{'#' * level} `{name}`\n\n{help_text}"
        yield f"```text\n{' '.join([name, *command.collect_usage_pieces(context)])}\n```"
        records = [record for each in command.get_params(context) if (record := each.get_help_record(context))]
        rows = [f"| `{option.replace('|', chr(92) + '|')}` | {_cell(words)} |" for option, words in records]
        yield "\n".join(["| option | |", "|---|---|", *rows])
    if isinstance(command, click.Group):
        for word, each in sorted(command.commands.items()):
            if not each.hidden:
                yield from _command(each, f"{name} {word}", 3)


def _cell(words: str) -> str:
    return re.sub(r"[<>|*_\[\]]", lambda found: f"\\{found[0]}", words)


def _findings() -> str:
    """By what ``check`` calls things, all that it may say of them; what stands in braces is known at the time."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted((ROOT / "embedqueue" / "operating").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding" and len(node.args) == 3:
                level, about, words = node.args
                if isinstance(level, ast.Constant) and isinstance(about, ast.Constant):
                    found.setdefault(about.value, []).append((level.value, _words(words)))
    text = [
        "# Findings of `check`",
        "`embedqueue check` looks at settings, Redis, workers and provider. What it finds is `ok`, a `warning` (it "
        "works, and may hurt some day) or a `problem` (it does not work; the command then exits with 1). With "
        "`--json`, each is an object of `level`, `about` and `words`. The sentences say what to do; here are those of "
        "the code.",
    ]
    for about, all_words in sorted(found.items()):
        rows = [f"| {level} | {_cell(words)} |" for level, words in dict.fromkeys(all_words)]
        text += [f"## {about}", "\n".join(["| | |", "|---|---|", *rows])]
    return "\n\n".join(text)


def _words(node: ast.expr) -> str:
    """A sentence of the code, with what is put into it in braces."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else "{...}" for each in node.values)
    return str(node.value) if isinstance(node, ast.Constant) else "{...}"


def _decisions() -> str:
    text = ["# Decisions", "Why things are as they are. An accepted record is not rewritten; a later one replaces it."]
    records = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    return "\n\n".join(
        [*text, "\n".join(f"- [{_title(f'docs/decisions/{each.name}')}]({each.name})" for each in records)]
    )
