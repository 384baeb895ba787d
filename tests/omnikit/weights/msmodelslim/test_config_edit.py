"""What changes in config.json before and after msmodelslim."""

from __future__ import annotations

import json

import pytest
from checkpoint_case import CONFIG, CONFIG_TEXT

from omnikit.weights.msmodelslim import edits
from omnikit.weights.msmodelslim.edits import Unexpected


def test_before_the_quantization_goes_and_the_text_stays() -> None:
    edited = edits.config_before(CONFIG_TEXT)
    block = CONFIG_TEXT[CONFIG_TEXT.index('  "quantization') : CONFIG_TEXT.index('  "rms')]
    assert edited.text == CONFIG_TEXT.replace(block, "")
    assert edited.done == ("quantization_config is removed",)
    assert edits.config_before(edited.text) == edits.Edited(edited.text, ())


def test_before_a_null_is_taken_for_none_and_removed() -> None:
    edited = edits.config_before(json.dumps({**CONFIG, "quantization_config": None}))
    assert json.loads(edited.text) == {k: CONFIG[k] for k in CONFIG if k != "quantization_config"}
    assert edited.done == ("quantization_config is removed",)
    assert edits.config_before(edited.text).done == ()


def test_after_fp8_weights_are_no_result() -> None:
    with pytest.raises(Unexpected, match="found fp8 weights") as raised:
        edits.config_after(CONFIG_TEXT, CONFIG["num_hidden_layers"])
    assert "invoke run-msmodelslim" in raised.value.todo


@pytest.mark.parametrize("architectures", ["DeepseekV3Fusion", ["DeepseekV3Fusion"]])
def test_after_the_name_and_the_number_of_layers(architectures: object) -> None:
    text = json.dumps({"architectures": architectures, "num_hidden_layers": 62, "z": 1}, indent=4)
    edited = edits.config_after(text, 61)
    assert edited.text == (
        '{\n    "architectures": ["DeepseekV3ForCausalLM"],\n'
        '    "num_hidden_layers": 61,\n    "z": 1\n}'
    )
    assert edited.done == (
        'architectures: DeepseekV3Fusion -> ["DeepseekV3ForCausalLM"]',
        "num_hidden_layers: 62 -> 61",
    )
    assert edits.config_after(edited.text, 61).done == ()


@pytest.mark.parametrize(
    "change, said",
    [
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "'compressed-tensors'"),
        ({"quantization_config": False}, "found False"),
        ({"quantization_config": {}}, "found 'no quant_method'"),
        ({"architectures": ["Qwen2ForCausalLM"]}, "found ['Qwen2ForCausalLM']"),
    ],
)
def test_before_refuses_other_weights(change: dict[str, object], said: str) -> None:
    with pytest.raises(Unexpected) as raised:
        edits.config_before(json.dumps({**CONFIG, **change}))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    "text, said",
    [
        ("[]", "no JSON object"),
        ('{"architectures": ["Qwen2ForCausalLM"]}', "found ['Qwen2ForCausalLM']"),
        ('{"architectures": "DeepseekV3Fusion"}', "found none"),
        ('{"architectures": "DeepseekV3Fusion", "num_hidden_layers": 60}', "62 (or 61), found 60"),
    ],
)
def test_after_refuses_what_the_tool_does_not_write(text: str, said: str) -> None:
    with pytest.raises(Unexpected) as raised:
        edits.config_after(text, 61)
    assert said in str(raised.value)


BLOCK = '{\r\n\t\t"quant_method": "fp8",\r\n\t\t"weight_block_size": [128,\t128]\r\n\t}'


@pytest.mark.parametrize("place", [0, 1, 2])
def test_first_middle_and_last_go_and_nothing_else(place: int) -> None:
    """Line breaks, numbers, escapes and blanks stay as they are."""
    others = ['"architectures" : ["DeepseekV3ForCausalLM"]', '"rms":1E-6 , "c": {"b": "\\u4e2d"}']
    with_it = [*others[:place], f'"quantization_config" :{BLOCK}', *others[place:]]
    text, left = ("{\r\n\t" + ",\r\n\t".join(them) + "\r\n}\r\n" for them in (with_it, others))
    assert edits.config_before(text).text == left


def test_a_member_in_a_form_that_is_not_known_is_refused_and_shown() -> None:
    other = {"quant_method": "fp8", "more": {"quant_method": "x"}}
    text = json.dumps({**CONFIG, "quantization_config": other})
    with pytest.raises(Unexpected, match=r"found \"quantization_config\": {.*more") as raised:
        edits.config_before(text)
    assert "by hand" in raised.value.todo


def test_a_member_of_the_same_name_deeper_down_stays() -> None:
    text = json.dumps({**CONFIG, "text": {"quantization_config": None}})
    assert json.loads(edits.config_before(text).text)["text"] == {"quantization_config": None}
