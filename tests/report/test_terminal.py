from pathlib import Path

from quadnas.report.terminal import architecture_text, summary_text

from .example import LABELS, device_card, search_result, search_settings, slot

DRAWING = """\
stage      map      latency  blocks (quadra)
    1    56x56     13.00 ms  k7 e4, k3 e2, identity
    2    28x28     10.00 ms  2x k5 e2
 rest              9.500 ms  stem, down-sampling, head
  all              32.50 ms  1,234,567 parameters"""

SUMMARY = """\
latency   32.50 ms on cortexA76, predicted, not measured
for       224x224 pixels, batch 1, fp32, TFLite 2.1
limit     35 ms; the space reaches 14.00 ms to 60.00 ms
error     90% interval 30.50 ms to 35.25 ms, uncalibrated: parts are priced by stand-ins or
          extrapolated; 98.7% of 1,234 held-out networks within 10 %
coverage  80.0% exact, 20.0% surrogate, 0.0% uncovered of the predicted ms; surrogates: gelu,
          layernorm
accuracy  84.2% of 400 test images at 32x32 pixels, 95% interval 80.4% to 87.5% (retrained; 80.1%
          with inherited weights)
beware    a demonstration: Digits are 8x8 images.
beware    Stage 2 was trained on 2x2 maps, where kernels 3, 5 and 7 see the same pixels: the search
          could not learn which of them is better.
files     model    runs/one/model.yaml
          weights  runs/one/model.safetensors
          report   runs/one/report.html"""


def test_the_drawing() -> None:
    assert architecture_text(search_result()) == DRAWING


def test_the_family_is_named_where_there_are_several() -> None:
    record = slot(0, "identity").model_copy(
        update={"labels": (*LABELS[:-1], "mbconv-k3"), "latency_ms": (1.0,) * 7}
    )
    text = architecture_text(search_result(slots=(record, slot(0, "quadra-k3-e2"), slot(0, "identity"))))
    assert "  blocks\n" in text
    assert "  mbconv k3\n" in text
    assert "  quadra k3 e2, identity\n" in text


def test_a_deep_stage_wraps_between_blocks() -> None:
    chosen = ["quadra-k7-e4", "quadra-k3-e2"] * 40
    lines = architecture_text(search_result(slots=tuple(slot(0, label) for label in chosen))).splitlines()
    assert max(map(len, lines)) < 100
    assert " ".join(line[29:] for line in lines[1:-2]) == ", ".join(["k7 e4", "k3 e2"] * 40)


def test_the_summary() -> None:
    text = summary_text(search_settings(), search_result(), device_card(), Path("runs/one"))
    assert text == SUMMARY


def test_the_summary_says_what_was_held_to_the_limit_and_the_batch_asked_for() -> None:
    result = search_result(bound_ms=34.5, retrained=False, demonstration=False, data_note="")
    text = summary_text(search_settings(batch=4), result, device_card(), Path("one"))
    assert "limit     35 ms; held to it: 34.50 ms; the space" in text
    assert "batch 4" in text
    assert "(inherited weights, not retrained)" in " ".join(text.split())
    assert "demonstration" not in text


def test_the_summary_says_what_the_user_s_measurements_changed() -> None:
    scaled = search_result(scale="scaled by 0.93 from your measurements of 3 models")
    text = summary_text(search_settings(), scaled, device_card(), Path("one"))
    assert "\nscale     scaled by 0.93 from your measurements of 3 models\n" in text


def test_names_cannot_command_the_terminal() -> None:
    hostile = "\x1b[2J\u202e-k3"
    record = slot(0, "identity").model_copy(update={"labels": (hostile,) * 7})
    text = architecture_text(search_result(slots=(record,)))
    assert "\x1b" not in text
    assert "\u202e" not in text
