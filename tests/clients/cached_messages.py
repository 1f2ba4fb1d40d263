"""What anthropic-python reads of one question: its stream, then the JSON that is kept of it. Prints one JSON line."""

import json

from anthropic import Anthropic

ASKED = {"model": "route", "max_tokens": 100, "messages": [{"role": "user", "content": "?"}]}

with Anthropic(max_retries=0) as client:
    with client.messages.stream(**ASKED) as stream:
        first = stream.get_final_message()
    raw = client.messages.with_raw_response.create(**ASKED)
    cache, whole = raw.headers["x-penstock-cache"], raw.parse()
    shown = [
        json.loads(one.model_dump_json(include={"content", "usage", "stop_reason", "id"})) for one in (first, whole)
    ]
    print(json.dumps({"cache": cache, "stream": shown[0], "whole": shown[1]}))
