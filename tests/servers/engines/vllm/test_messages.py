"""vLLM's messages, made clear. The long ones are as vLLM 0.32 spells them."""

from servers.engines.vllm.messages import explain, whole


def _line(kind: str, location: str, text: str) -> str:
    return f"  {{'type': '{kind}', 'loc': 'body.{location}', 'msg': \"{text}\", 'input': 'secret'}}\n"


def _explain(message: str) -> tuple[str, object]:
    error = explain({"message": message, "type": "Bad Request", "param": "body.x", "code": 400}, "chat")
    return error["message"], error["param"]


def test_options_are_named_as_settings() -> None:
    message, _ = _explain('"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
    assert message.endswith(
        "(in the settings: models.chat.args.enable-auto-tool-choice, models.chat.args.tool-call-parser)"
    )
    plain = {"message": "temperature must be non-negative, got -1.0. A -- B", "code": 400}
    assert explain(plain, "chat") is plain


def test_of_a_messages_types_only_the_one_of_its_role_counts() -> None:
    message = "22 validation errors:\n"
    for name, role in (("System", "system"), ("User", "user"), ("Assistant", "assistant")):
        at = f"messages.0.ChatCompletion{name}MessageParam"
        message += _line("string_type", f"{at}.content", "Input should be a valid string")
        message += _line("iterable_type", f"{at}.content", "Input should be iterable")
        if role != "user":
            message += _line("literal_error", f"{at}.role", f"Input should be '{role}'")
    message += "  ...and 12 more errors"
    text = "messages.0.content: Input should be a valid string, or iterable (of 22 validation errors)"
    assert _explain(message) == (text, "messages.0.content")


def test_a_part_of_no_known_type_is_told_the_types_that_there_are() -> None:
    at = "input.0.EasyInputMessageParam.content"
    message = (
        "241 validation errors:\n"
        + _line("string_type", "input", "Input should be a valid string")
        + _line("string_type", at, "Input should be a valid string")
        + _line("literal_error", f"{at}.0.ResponseInputTextParam.type", "Input should be 'input_text'")
        + _line("missing", f"{at}.0.ResponseInputImageParam.detail", "Field required")
        + _line("literal_error", f"{at}.0.ResponseInputImageParam.type", "Input should be 'input_image'")
    )
    text = "input.0.content.0.type: Input should be 'input_text', or 'input_image' (of 241 validation errors)"
    assert _explain(message) == (text, "input.0.content.0.type")


def test_the_log_gets_all_that_vllm_lists_and_no_value_of_the_request() -> None:
    at = "input.0.EasyInputMessageParam"
    lines = [
        _line("string_type", at, "Input should be a valid string"),
        _line("missing", f"{at}.role", "Field required"),
    ]
    message = "241 validation errors:\n" + "".join(lines) + "  ...and 239 more errors"
    text = f"241 validation errors: body.{at}: Input should be a valid string; body.{at}.role: Field required"
    assert whole({"message": message}) == text
    assert whole({"message": "temperature must be non-negative"}) == ""


def test_one_error_is_a_sentence() -> None:
    message = "1 validation error:\n" + _line("missing", "max_tokens", "Field required")
    assert _explain(message) == ("max_tokens: Field required", "max_tokens")


def test_what_cannot_be_read_stays() -> None:
    error = {"message": "2 validation errors:\n  {'type': 'x', 'loc': ...[truncated]", "param": None}
    assert explain(error, "chat") is error
