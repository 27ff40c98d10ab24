import pytest

from meshlib.sources.files.located import format_path, line_of, parse_path
from meshlib.sources.files.yaml_tree import YamlSyntaxError, parse_documents

YAML = """\
name: payments      # line 1
endpoints:
- host: a           # line 3
  ports: [80, 81]
- host: b
  "x.y": {z: 1}     # line 6
"""


def value_of(text: str) -> object:
    (document,) = parse_documents(text)
    return document.value


@pytest.mark.parametrize(
    "path, line",
    [
        ("name", 1),
        ("endpoints", 2),
        ("endpoints[0].host", 3),
        ("endpoints[0].ports[1]", 4),
        ("endpoints[1]", 5),
        ('endpoints[1]["x.y"].z', 6),
        ("endpoints[1].no_such_field.deeper[3]", 5),
        ("endPoints[0].host", 3),
        ("", 1),
    ],
)
def test_a_path_leads_to_the_line_of_its_deepest_written_part(path: str, line: int) -> None:
    assert line_of(value_of(YAML), parse_path(path)) == line


@pytest.mark.parametrize("path", ["a", "a.b[0].c", 'a["x.y"][2].b', '["@type"]', "a[0][1]"])
def test_paths_are_written_and_read_back(path: str) -> None:
    steps = parse_path(path)
    assert parse_path(format_path(steps)) == steps


@pytest.mark.parametrize(
    "text, value",
    [
        ("yes", True),
        ("Off", False),
        ("'yes'", "yes"),
        ("!!str yes", "yes"),
        ("\U0001f600", "\U0001f600"),
        ("~", None),
        ("", None),
        ("12", 12),
        ("-3", -3),
        ("010", 8),
        ("0x1F", 31),
        ("0o17", 15),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        ("15s", "15s"),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        (".inf", "Infinity"),
        ("-.INF", "-Infinity"),
        (".nan", "NaN"),
        ("9" * 500, "9" * 500),
    ],
)
def test_scalars_resolve_as_envoy_and_kubernetes_read_them(text: str, value: object) -> None:
    assert value_of(f"v: {text}") == {"v": value}


def test_several_documents_and_empty_ones() -> None:
    documents = parse_documents("---\n---\na: 1\n---\n# nothing\n---\n- b\n")
    assert [(document.value, document.line) for document in documents] == [({"a": 1}, 3), (["b"], 7)]


def test_anchors_aliases_and_merge_keys() -> None:
    text = "base: &base {a: 1, b: 1}\nuse:\n  <<: *base\n  b: 2\nlist: [*base]\n"
    assert value_of(text) == {"base": {"a": 1, "b": 1}, "use": {"a": 1, "b": 2}, "list": [{"a": 1, "b": 1}]}


def test_an_ignored_item_only_holds_anchors() -> None:
    assert value_of("hidden: !ignore\n  x: &x {a: 1}\nused: *x\n") == {"used": {"a": 1}}


def test_an_alias_never_reaches_the_document_before() -> None:
    with pytest.raises(YamlSyntaxError, match="names no anchor"):
        parse_documents("a: &x 1\n---\nb: *x\n")


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merge_bomb(levels: int) -> str:
    lines = ["a0: &a0 {l: [x, x, x, x, x, x, x, x, x, x]}"]
    lines += [
        f"a{n}: &a{n} {{p: {{<<: *a{n - 1}}}, q: {{<<: *a{n - 1}}}, r: {{<<: *a{n - 1}}}}}" for n in range(1, levels)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text, line, words",
    [
        ("a: 1\nb: 2\na: 3", 3, "duplicate key 'a': it stands on line 1 already"),
        ("a:\n\tb: 1", 2, "a tab indents this line"),
        ("a: [1, 2\nb: 1", 2, "flow sequence"),
        ("a: b: c", 1, "mapping values"),
        ("a: &a [*a]", 1, "names no anchor"),
        ("a: *nothing", 1, "names no anchor"),
        ("a: !!python/object:os.system {}", 1, "is not allowed"),
        ("a: !!python/name:os.system", 1, "is not allowed"),
        ("a: !!binary aGk=", 1, "is not allowed"),
        ("a: !custom b", 1, "is not allowed"),
        ("x: 1\n? [a, b]\n: 1", 2, "cannot be a key"),
        ("a: {<<: 1}", 1, "takes a mapping"),
        (r'a: "\ud83d"', 1, "invalid Unicode character escape code"),
        ("x: 1\na: b\x07", 2, "unacceptable character"),
        ("[" * 100_000, 1, "nested deeper"),
        ("{a: " * 100_000, 1, "nested deeper"),
        ("- " * 100_000, 1, "nested deeper"),
        (bomb(12), 6, "more than 1000000 values"),
        (merge_bomb(20), 11, "more than 1000000 values"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_read_says_where_and_why(text: str, line: int, words: str) -> None:
    with pytest.raises(YamlSyntaxError) as caught:
        parse_documents(text)
    assert (caught.value.line, words in caught.value.reason) == (line, True), caught.value
