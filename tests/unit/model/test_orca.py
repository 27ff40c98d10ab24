"""Load reports: protobuf's own idea of the message, and every form of the headers."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshlib.model.orca import LoadReport, report_request, requested_interval

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
MAPS = st.dictionaries(st.text(max_size=200), NUMBERS, max_size=3)
REPORTS = st.builds(LoadReport, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, MAPS, MAPS, MAPS)


def protobuf() -> type:
    module = pytest.importorskip("xds.data.orca.v3.orca_load_report_pb2")
    return module.OrcaLoadReport  # type: ignore[no-any-return]


FIELDS = ("cpu_utilization", "mem_utilization", "application_utilization", "rps_fractional", "eps")
MAP_FIELDS = ("request_cost", "utilization", "named_metrics")


def as_protobuf(report: LoadReport) -> object:
    fields = {name: getattr(report, name) for name in FIELDS}
    return protobuf()(**fields, **{name: dict(getattr(report, name)) for name in MAP_FIELDS})


@given(REPORTS)
def test_protobuf_reads_what_is_written_and_the_other_way_round(report: LoadReport) -> None:
    theirs = as_protobuf(report)
    assert protobuf().FromString(report.to_bytes()) == theirs
    assert LoadReport.from_bytes(theirs.SerializeToString()) == report  # type: ignore[attr-defined]


@given(REPORTS)
def test_headers_carry_it(report: LoadReport) -> None:
    encoded = base64.b64encode(report.to_bytes()).decode()
    assert LoadReport.from_headers(report.to_header(), None) == report
    assert LoadReport.from_headers(encoded.rstrip("="), None) == report, "gRPC leaves the padding out"
    assert LoadReport.from_headers(report.to_bytes(), None) == report, "metadata of grpcio are the bytes themselves"
    assert LoadReport.from_headers(None, f"BIN {encoded}") == report


def test_json_takes_both_kinds_of_names() -> None:
    report = LoadReport(cpu_utilization=0.5, rps_fractional=7.0, named_metrics={"queue.length": 3.0})
    snake = {"cpu_utilization": 0.5, "rps_fractional": 7, "named_metrics": {"queue.length": 3}}
    camel = {"cpuUtilization": 0.5, "rpsFractional": 7, "namedMetrics": {"queue.length": 3}, "rps": "7"}
    for form in (snake, camel):
        assert LoadReport.from_headers(None, f"JSON {json.dumps(form)}") == report


@pytest.mark.parametrize("separator", ["=", ":"])
def test_text_is_a_list(separator: str) -> None:
    text = ", ".join(f"{name}{separator}{value}" for name, value in (("eps", 1), ("named_metrics.a=b", 2)))
    assert LoadReport.from_headers(None, f"TEXT {text.replace('a=b', 'a')}") == LoadReport(
        eps=1.0, named_metrics={"a": 2.0}
    )


def test_no_header_is_no_report() -> None:
    assert LoadReport.from_headers(None, None) is None


@pytest.mark.parametrize(
    "binary,other",
    [
        ("!", None),
        ("AAAA", None),
        (base64.b64encode(b"\x09\x00").decode(), None),  # cut off
        (base64.b64encode(b"\x0f").decode(), None),  # a wire type that there is not
        (LoadReport(eps=float("inf")).to_header(), None),
        (None, "cpu_utilization=1"),
        (None, "XML <a/>"),
        (None, "TEXT load=1"),
        (None, "TEXT eps"),
        (None, "TEXT eps=nan"),
        (None, 'JSON {"eps": 1' + "0" * 400 + "}"),
        (None, 'JSON {"eps": 1' + "0" * 5000 + "}"),
        (None, "JSON " + "[" * 60_000),
        (None, "JSON " + '{"eps":' * 10_000),
        (None, "TEXT eps=1,eps=2"),
        (None, "JSON []"),
        (None, "JSON {"),
        (None, 'JSON {"eps": true}'),
        (None, 'JSON {"eps": "x"}'),
        (None, 'JSON {"load": 1}'),
    ],
)
def test_what_is_no_report_is_a_value_error(binary: str | None, other: str | None) -> None:
    with pytest.raises(ValueError, match=r".+"):
        LoadReport.from_headers(binary, other)


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_any_value_is_a_report_or_a_value_error(value: bytes | str) -> None:
    for arguments in ((value, None), (None, value if isinstance(value, str) else value.decode("latin-1"))):
        for form in ("", "JSON ", "TEXT ", "BIN "):
            other = arguments[1] if arguments[1] is None else form + arguments[1]
            try:
                LoadReport.from_headers(arguments[0], other)
            except ValueError:
                continue


@given(st.integers(0, 10**6), st.integers(0, 999_999_999))
def test_the_interval_of_a_stream_is_asked_for_in_protobuf(seconds: int, nanos: int) -> None:
    orca_pb2 = pytest.importorskip("xds.service.orca.v3.orca_pb2")
    asked = orca_pb2.OrcaLoadReportRequest()
    asked.report_interval.seconds, asked.report_interval.nanos = seconds, nanos
    assert requested_interval(asked.SerializeToString()) == pytest.approx(seconds + nanos / 1e9)
    ours = orca_pb2.OrcaLoadReportRequest.FromString(report_request(seconds + nanos / 1e9))
    assert ours.report_interval.ToNanoseconds() == pytest.approx(seconds * 10**9 + nanos, abs=1000)


def test_a_request_that_says_nothing_leaves_the_interval_to_the_server() -> None:
    assert requested_interval(b"") == requested_interval(b"\xff") == 0.0
