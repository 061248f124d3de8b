import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from quadnas.report.page import render_page, write_report
from quadnas.run.events import Evaluated, WeightStep
from quadnas.run.folder import RunFolder
from quadnas.search.result import SearchResult, SurrogateRecord

from .example import LABELS, device_card, journal, search_events, search_result, search_settings, slot

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The tags, the text, and the cells of all heat maps of a page; refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.cells: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "td":
            self.cells.append(("", dict(attrs)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        if "td" in self.open:
            self.cells[-1] = (self.cells[-1][0] + data, self.cells[-1][1])

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def page(result: SearchResult | None = None, **settings: Any) -> str:
    result = result or search_result()
    return render_page(search_settings(**settings), result, journal(search_events(result)), device_card())


@pytest.fixture(scope="module")
def example() -> str:
    return page()


def test_the_page_gives_the_answer_and_the_evidence(example: str) -> None:
    text = Page(example).text
    for expected in (
        "32.50 ms predicted on cortexA76, 84.2% on digits",
        "The latency is predicted, not measured: for 224x224 pixels, batch 1, fp32, TFLite 2.1.",
        "limit 35 ms",
        "90 % interval 30.50 to 35.25 ms",
        "80.0% exact",
        "20.0% surrogate",
        "Only a demonstration: Digits are 8x8 images.",
        "Accuracy was measured on images of 32x32 pixels; the latency is that of the deployment size, 224x224.",
        "the space: 14.00 ms to 60.00 ms",
        "Stage 2 was trained on 2x2 maps",
        "the data are read from a cache",
        "Stem, down-sampling and head: 9.500 ms, 29.2%",
        "1,234,567 parameters",
        "mobilenetv3, never seen by the fit 400 51.0% 82.0% -4.3% 63.2%",
        "held-out networks 1,234 85.0% 98.7% 99.5% 3.5% 0.9980 89.5%",
        "Searched networks are 1.2% slower than predicted on average (3.4% with stand-ins in them): 200 searches",
        "3 of the held-out networks have an operator without a price",
        "layernorm 2.000 ms 10.0% from Pixel 4 FFN blocks",
        "schedule.warmup_epochs 6",
        "model.safetensors",
        "quadra-k7-e4,quadra-k3-e2,identity|quadra-k5-e2,quadra-k5-e2",
    ):
        assert expected in text


def test_the_heat_map_shows_the_last_probabilities_and_the_choice() -> None:
    result = search_result()
    events = journal(search_events(result))
    last = [event for event in events if event["event"] == "ArchitectureStep"][-1]["probabilities"]
    cells = Page(render_page(search_settings(), result, events, device_card())).cells
    heat = [(text, attrs) for text, attrs in cells if "style" in attrs]
    assert [text for text, _ in heat] == [f"{100 * p:.0f}" for row in last for p in row]
    assert [attrs["style"] for _, attrs in heat] == [f"--p:{p:.3f}" for row in last for p in row]
    chosen = [number for number, (_, attrs) in enumerate(heat) if attrs.get("class") == "chosen"]
    assert chosen == [7 * s + record.chosen for s, record in enumerate(result.slots)]


def test_the_picture_has_a_box_for_every_slot_in_proportion(example: str) -> None:
    boxes = [attrs["style"] for tag, attrs in Page(example).tags if tag == "i"]
    # kernel 7 of 7 is 60 px high, expansion 4 of 4 is 40 px wide; what has no arguments is half of that
    full, three_two, five_two = "width:40px;height:60px", "width:20px;height:26px", "width:20px;height:43px"
    assert boxes == [full, three_two, "width:20px;height:30px", five_two, five_two]
    free = [
        attrs for tag, attrs in Page(example).tags if tag == "div" and "free" in (attrs.get("class") or "")
    ]
    assert len(free) == 1


def test_nothing_is_fetched_and_nothing_runs(example: str) -> None:
    for tag, attributes in Page(example).tags:
        assert tag not in {"script", "link", "iframe", "object", "img"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href"}:
                assert (value or "").startswith("#")
    assert "@import" not in example
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", example))


def test_ids_are_unique_and_references_resolve(example: str) -> None:
    ids = [attrs["id"] for _, attrs in Page(example).tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', example)) <= set(ids)


def test_hostile_names_stay_text() -> None:
    hostile = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    record = slot(0, "identity").model_copy(update={"labels": (hostile, *LABELS[1:]), "chosen": 0})
    result = search_result(
        architecture=hostile,
        slots=(record, record),
        surrogates=(SurrogateRecord(op=hostile, latency_ms=1.0, error=0.1, reason=hostile),),
        data_note=hostile,
        files={hostile: hostile},
    )
    text = render_page(
        search_settings(space=hostile, data=hostile),
        result,
        [{"event": "Notice", "text": hostile}, *journal([WeightStep(hostile, 1, 2, 1.0, 0.5, 0.1)])],
        device_card(device=hostile, description=hostile, runtime=hostile, provenance=hostile),
    )
    assert "<script" not in text
    assert "<img" not in text
    parsed = Page(text)
    assert parsed.text.count("<script>alert(1)</script>") > 10


def test_the_same_run_gives_the_same_page(example: str) -> None:
    assert page() == example


def test_a_page_without_steps_and_prices() -> None:
    record = slot(0, "quadra-k3-e2").model_copy(update={"latency_ms": (4.0, None, *[1.0] * 5)})
    evaluated = Evaluated("inherited", "test", 0.5, 1.0, 10)
    result = search_result(slots=(record,), surrogates=(), files={})
    card = device_card(families_left_out=())
    parsed = Page(render_page(search_settings(), result, journal([evaluated]), card))
    assert "no price" in parsed.text
    assert "svg" not in {tag for tag, _ in parsed.tags}


@pytest.mark.parametrize("depth", [1, 40])
def test_every_slot_has_its_row_at_any_depth(depth: int) -> None:
    slots = tuple(slot(stage, "quadra-k3-e2") for stage in range(2) for _ in range(depth))
    text = Page(page(search_result(slots=slots))).text
    assert f"{depth} of {depth} blocks" in text
    assert f" 2.{depth} " in text
    assert f" 2.{depth + 1} " not in text


def test_curves_lay_phases_one_after_the_other(example: str) -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", example)
    assert {" warm-up", " search", " retraining"} <= set(texts)
    # three phases of 40 steps, each counted from 1
    assert "120" in texts


def test_a_search_that_counts_on_from_the_warm_up_is_not_moved() -> None:
    steps = [WeightStep("warm-up", n, 30, 1.0, 0.5, 0.1) for n in range(1, 11)]
    steps += [WeightStep("search", n, 30, 1.0, 0.5, 0.1) for n in range(11, 31)]
    text = render_page(search_settings(), search_result(), journal(list(steps)), device_card())
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", text)
    assert "30" in texts
    assert "40" not in texts[: texts.index("training step")]


def test_the_report_lies_in_the_run_folder(tmp_path: Path, example: str) -> None:
    result = search_result()
    run = RunFolder.create(tmp_path / "run", {})
    with run:
        for line in journal(search_events(result)):
            run.journal.append(line)
        path = write_report(run, search_settings(), result, device_card())
    assert path == tmp_path / "run" / "report.html"
    assert path.read_text(encoding="utf-8") == example
