"""The command line: what it prints, what it refuses, and its exit codes."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import zstandard

from streams.commands import COMMANDS, main
from streams.dead_letters import DeadLetter
from streams.events import decode_product, decode_purchase, decode_search
from streams.kafka import connect_admin
from streams.producer import EventProducer
from streams.settings import Settings
from streams.topics import end_offsets, ensure_topics
from streams.zstandard_file import ZstandardFile

Afterglow = Callable[[Sequence[str]], tuple[int, str, str]]

SEARCHES = (
    b'{"user_id":"u1","query":"boots","ts":1600000000000,"colour":"ignored"}\n'
    b"\n"
    b'{"user_id":"u2","query":"","ts":1600000000000}\n'
    b'  {"user_id":"u3","query":"socks","ts":1600000000000}\r\n'
    b'{"user_id":"u4","query":"lamps","ts":1600000000}\n'
    b'{"user_id":"u5","query":"lamps","ts":1600000001}\n'
    b'{"user_id":"u6","query":"tent","ts":1600000000000}'
)
REFUSED: list[dict[str, str | int]] = [
    {"field": "ts", "reason": "looks like seconds: 1600000000; give milliseconds", "count": 2, "example": "{file}:5"},
    {"field": "query", "reason": "is empty", "count": 1, "example": "{file}:3"},
]


@pytest.fixture
def afterglow(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Afterglow:
    """Runs the command in a directory of its own, and gives its exit code and what it printed."""
    for name in [name for name in os.environ if name.startswith("AFTERGLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def run(arguments: Sequence[str]) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(arguments)
        out, err = capfd.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def broker(settings: Settings, monkeypatch: pytest.MonkeyPatch, afterglow: Afterglow) -> Settings:
    """The session's Kafka and topics of this test's own, as the command line finds them."""
    topics = settings.topics
    monkeypatch.setenv("AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS", settings.kafka.bootstrap_servers)
    for field in ("searches", "purchases", "products", "dead_letters"):
        monkeypatch.setenv(f"AFTERGLOW_TOPICS_{field.upper()}", getattr(topics, field))
    return settings


def records_in(settings: Settings, topic: str) -> int:
    admin = connect_admin(settings.kafka)
    return sum(end_offsets(admin, {topic: ensure_topics(settings)[topic]}).values())


def test_help_lists_every_command_without_importing_one() -> None:
    code = (
        "import sys\nfrom streams.commands import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "sys.stderr.write(' '.join(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in ("up", "encoder", "produce", "topics", "dead-letters", "settings", "schema"):
        assert f"\n  {name} " in done.stdout
    loaded = set(done.stderr.split())
    assert loaded.isdisjoint({"torch", "transformers", "faust", "qdrant_client", "confluent_kafka", "numpy", "rich"})


def test_every_command_in_the_table_that_exists_can_show_its_help(afterglow: Afterglow) -> None:
    shown = afterglow(["--help"])[1]
    for name in COMMANDS:
        if f"\n  {name} " in shown:
            code, out, _ = afterglow([name, "--help"])
            assert code == 0
            assert out.startswith(f"Usage: afterglow {name} ")


def test_version(afterglow: Afterglow) -> None:
    code, out, _ = afterglow(["--version"])
    assert code == 0
    assert out.startswith("afterglow ")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["explode"], 2, "error: No such command 'explode'."),
        (["produce", "events.jsonl"], 2, "error: Missing option '--topic'. Choose from: searches, purchases, products"),
        (["produce", "no.jsonl", "--topic", "searches"], 2, "error: Invalid value for FILE: there is no file no.jsonl"),
        (["topics", "--config", "no.toml"], 2, "error: there is no settings file no.toml"),
        (
            ["--kafka", "here", "topics"],
            2,
            "error: kafka.bootstrap_servers: expected host:port, got 'here' (kafka.bootstrap_servers is from: "
            "command line)",
        ),
    ],
)
def test_usage_errors_are_told_in_one_line(afterglow: Afterglow, arguments: list[str], code: int, told: str) -> None:
    got, out, err = afterglow(arguments)
    assert (got, out) == (code, "")
    assert " ".join(err.splitlines()[-1].split()) == told


def test_an_option_counts_before_and_after_the_commands_name(afterglow: Afterglow) -> None:
    for arguments in (["--kafka", "k:1", "settings", "--json"], ["settings", "--json", "--kafka", "k:1"]):
        code, out, _ = afterglow(arguments)
        assert code == 0
        (setting,) = [one for one in json.loads(out) if one["name"] == "kafka.bootstrap_servers"]
        assert setting == {
            "name": "kafka.bootstrap_servers",
            "value": "k:1",
            "source": "command line",
            "unit": "host:port",
            "default": "127.0.0.1:9092",
            "description": "Kafka's addresses, separated by commas.",
            "variable": "AFTERGLOW_KAFKA_BOOTSTRAP_SERVERS",
        }


def test_settings_never_show_a_secret(afterglow: Afterglow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERGLOW_QDRANT_API_KEY", "hunter2")
    for arguments in (["settings"], ["settings", "--json"]):
        code, out, err = afterglow(arguments)
        assert code == 0
        assert "***" in out
        assert "hunter2" not in out + err


def test_the_schemas_examples_are_events(afterglow: Afterglow) -> None:
    code, out, _ = afterglow(["schema"])
    assert code == 0
    schemas = json.loads(out)
    assert schemas["purchase"]["required"] == ["user_id", "product_id", "quantity", "ts"]
    now = 1_800_000_000_000
    decoders: dict[str, Callable[[bytes, int], object]] = {
        "search": decode_search,
        "purchase": decode_purchase,
        "product": decode_product,
    }
    for name, decode in decoders.items():
        for example in schemas[name]["examples"]:
            decode(json.dumps(example).encode(), now)
    assert json.loads(afterglow(["schema", "product"])[1]) == schemas["product"]


@pytest.mark.end_to_end
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_produce_sends_what_it_understands_and_tells_the_rest(
    afterglow: Afterglow, broker: Settings, tmp_path: Path, suffix: str
) -> None:
    packed = {"": SEARCHES, ".gz": gzip.compress(SEARCHES), ".zst": zstandard.compress(SEARCHES)}
    file = tmp_path / f"searches.jsonl{suffix}"
    file.write_bytes(packed[suffix])
    code, out, err = afterglow(["produce", str(file), "--topic", "searches", "--json"])
    summary = json.loads(out)
    assert code == 1
    assert (summary["topic"], summary["sent"], summary["refused"]) == ("searches", 3, 3)
    assert summary["refusals"] == [{**kind, "example": str(kind["example"]).format(file=file)} for kind in REFUSED]
    assert err == "error: 3 of 6 lines were refused and not sent; the others were\n"
    assert records_in(broker, broker.topics.searches) == 3


@pytest.mark.end_to_end
def test_produce_from_standard_input_at_a_rate(
    afterglow: Afterglow, broker: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = b'\xef\xbb\xbf{"product_id":"p1","title":"Boots"}\n{"product_id":"p2","title":"Socks"}\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    code, out, _ = afterglow(["produce", "-", "--topic", "products", "--rate", "50"])
    assert code == 0
    assert out.startswith("sent 2 products in ")
    assert records_in(broker, broker.topics.products) == 2


@pytest.mark.end_to_end
def test_a_ctrl_c_still_delivers_what_was_read(broker: Settings) -> None:
    ensure_topics(broker)
    command = [sys.executable, "-m", "streams", "produce", "-", "--topic", "products", "--json", "--rate", "100"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"".join(b'{"product_id":"p%d","title":"Boots"}\n' % number for number in range(1500)))
    process.stdin.flush()
    while not records_in(broker, broker.topics.products):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 0 < json.loads(out)["sent"] == records_in(broker, broker.topics.products)


@pytest.mark.end_to_end
def test_produce_tells_a_file_that_was_cut_off(afterglow: Afterglow, broker: Settings, tmp_path: Path) -> None:
    for suffix, packed in ((".gz", gzip.compress(SEARCHES)), (".zst", zstandard.compress(SEARCHES))):
        file = tmp_path / f"cut.jsonl{suffix}"
        file.write_bytes(packed[:-5])
        code, _, err = afterglow(["produce", str(file), "--topic", "searches"])
        assert code == 1
        assert err.startswith(f"error: {file} can't be read after line ")
        assert len(err.splitlines()) == 1


@pytest.mark.end_to_end
def test_a_line_of_any_length_is_refused_and_the_next_is_read(
    afterglow: Afterglow, broker: Settings, tmp_path: Path
) -> None:
    file = tmp_path / "long.jsonl"
    good = b'{"user_id":"u","query":"boots","ts":1600000000000}\n'
    file.write_bytes(b"x" * 3_000_000 + b"\n" + good + b"y" * 1_000_001 + b"\n" + good)
    code, out, _ = afterglow(["produce", str(file), "--topic", "searches", "--json"])
    summary = json.loads(out)
    assert (code, summary["sent"]) == (1, 2)
    assert summary["refusals"] == [
        {"field": "value", "reason": "is longer than 1000000 bytes", "count": 2, "example": f"{file}:1"}
    ]


@pytest.mark.end_to_end
def test_topics_are_shown_with_what_they_hold(afterglow: Afterglow, broker: Settings) -> None:
    code, out, err = afterglow(["topics", "--json"])
    assert code == 1
    assert json.loads(out) == {
        "topics": [],
        "missing": [
            broker.topics.searches,
            broker.topics.purchases,
            broker.topics.products,
            broker.topics.dead_letters,
        ],
    }
    assert f"has no topic {broker.topics.searches}, " in err
    made = ensure_topics(broker)
    with EventProducer(broker) as events:
        events.search("21", "boots")  # Kafka's partition 4 of 8
    code, out, _ = afterglow(["topics", "--json"])
    assert code == 0
    searches = json.loads(out)["topics"][0]
    assert (searches["name"], searches["id"]) == (broker.topics.searches, made[broker.topics.searches].id)
    assert (searches["records"], searches["retention_ms"], searches["cleanup"]) == (1, -1, "delete")
    assert searches["partitions"][4] == {"partition": 4, "first_offset": 0, "end_offset": 1}
    code, out, _ = afterglow(["topics"])
    assert out.splitlines()[0].split() == ["TOPIC", "ID", "PARTITIONS", "RECORDS", "END", "OFFSETS", "KEPT"]


@pytest.mark.end_to_end
def test_dead_letters_are_listed_and_retried(afterglow: Afterglow, broker: Settings) -> None:
    ensure_topics(broker)
    letters = [
        DeadLetter(
            topic=broker.topics.searches,
            partition=0,
            offset=offset,
            timestamp=1_600_000_000_000,
            field="value",
            reason="is not JSON",
            key=b"u",
            value=value,
        )
        for offset, value in enumerate((b'{"user_id":"u","query":"boots","ts":1600000000000}', b"\x1b[31mred\xff"))
    ]
    with EventProducer(broker) as producer:
        for letter in letters:
            producer.send(broker.topics.dead_letters, letter.key, letter.value, letter.headers())
    code, out, _ = afterglow(["dead-letters"])
    assert code == 0
    assert "\x1b" not in out
    assert out.splitlines()[-1] == "2 waiting"
    listed = json.loads(afterglow(["dead-letters", "list", "--json", "--limit", "1"])[1])
    assert listed["waiting"] == 2
    assert listed["letters"][0]["value_base64"] == "G1szMW1yZWT/"

    code, out, err = afterglow(["dead-letters", "retry", "--json"])
    assert code == 1
    assert json.loads(out)["sent"] == 1
    assert err == "error: 1 are still not understood, and wait on\n"
    assert records_in(broker, broker.topics.searches) == 1


def test_zstandard_frames_one_after_another_are_one_file() -> None:
    packed = zstandard.compress(b"a" * 300_000) + zstandard.compress(b"b\n")
    assert io.BufferedReader(ZstandardFile(io.BytesIO(packed))).read() == b"a" * 300_000 + b"b\n"
    assert io.BufferedReader(ZstandardFile(io.BytesIO(b""))).read() == b""
    with pytest.raises(EOFError):
        io.BufferedReader(ZstandardFile(io.BytesIO(packed[:-1]))).read()
    with pytest.raises(OSError, match="zstd"):
        io.BufferedReader(ZstandardFile(io.BytesIO(b"not zstandard"))).read()
