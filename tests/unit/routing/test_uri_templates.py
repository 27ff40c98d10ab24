"""Path templates and their rewrites, by the facts of Envoy 1.40 (held against it in differential/)."""

import pytest

from meshlib.model.report import ResourceError
from meshlib.model.uri_template import parse_template
from meshlib.routing.regex import compile_regex
from meshlib.routing.uri_template import compile_template_rewrite

MATCHES = [
    ("/", ["/"], ["", "/a", "//"]),
    ("/videos/{id}", ["/videos/1", "/videos/a=b*c%20"], ["/videos/", "/videos/1/2", '/videos/"', "/video/1"]),
    ("/*/x", ["/a/x"], ["/x", "/a/b/x"]),
    ("/**", ["/", "/a", "/a/b/", "//"], ["/{a}"]),
    ("/a/**", ["/a/", "/a/b/c"], ["/a", "/b/"]),
    ("/{p=a/*}/b", ["/a/1/b"], ["/a/b", "/a/1/2/b"]),
    ("/{p=**}.mp4", ["/.mp4", "/a/b.mp4"], ["/a.mp3", "/aXmp4"]),
    ("/v{n}.json", ["/v1.json"], ["/v.json", "/v1xjson"]),
    ("/a/", ["/a/"], ["/a", "/a//"]),
    ("/($+)", ["/($+)"], ["/($$)"]),
    ("/a*", ["/", "/a", "/aa"], ["/ab"]),
]


@pytest.mark.parametrize("template, fits, does_not", MATCHES)
def test_templates(template: str, fits: list[str], does_not: list[str]) -> None:
    test = compile_regex(parse_template(template).regex).fullmatch
    assert [path for path in (*fits, *does_not) if test(path)] == fits


@pytest.mark.parametrize(
    "template",
    [
        *("", "a", "/a b", "/ü", "/a//b", "/{a}{b}", "/**/*", "/{a=**}/{b}", "/{a}/{a}", "/{abcdefghijklmnopq}"),
        *("/{a}/{b}/{c}/{d}/{e}/{f}", "/{1a}", "/{a=}", "/{a=b/}", "/{a=/b}", "/{a=***}", "/{a={b}}", "/*{a}", "/{a"),
        *("/}", "/a/**.x/y", "/{a-1}", "/a?b", "/{}", "/{=a}", "/a{b", '/"'),
    ],
)
def test_what_is_no_template(template: str) -> None:
    with pytest.raises(ResourceError, match="path_template"):
        parse_template(template)


@pytest.mark.parametrize(
    "template, rewrite, path, expected",
    [
        ("/v/{a}/{b=x/*}/**", "/z/{b}/{a}{a}", "/v/1/x/2/3/4", "/z/x/2/11"),
        ("/{a=**}", "/", "/x/y", "/"),
        ("/{a}", "/b={a}*", "/x%20", "/b=x%20*"),
        ("/{a}", "/b", "/not/matched", "/not/matched"),
    ],
)
def test_rewrites(template: str, rewrite: str, path: str, expected: str) -> None:
    assert compile_template_rewrite(template, rewrite)(path) == expected


@pytest.mark.parametrize("rewrite", ["", "x", "/x//y", "/{b}", "/{a", "/a?b", "/}", "/{}", "/ü"])
def test_what_is_no_rewrite(rewrite: str) -> None:
    with pytest.raises(ResourceError, match="path_template_rewrite"):
        compile_template_rewrite("/{a}", rewrite)
