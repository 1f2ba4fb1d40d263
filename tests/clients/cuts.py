"""What a program does with openai-python where streams are cut: it reads each, and prints one JSON line of what it saw.

`node/cuts.mjs` is the same for openai-node. Nothing is judged here; `test_random_cuts.py` does that. The first argument
says how many there are. It runs under openai 1 and 3, so it imports nothing of this repository.
"""

import json
import sys

import openai
from openai import OpenAI


def read(client: OpenAI, model: str) -> dict[str, object]:
    text, finish = "", None
    try:
        for chunk in client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "?"}], stream=True
        ):
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
    except Exception as raised:  # noqa: BLE001 - whatever a program would see
        own = isinstance(raised, openai.APIError)
        return {"text": text, "finish": finish, "raised": repr(raised), "own": own}
    return {"text": text, "finish": finish, "raised": None, "own": False}


print(json.dumps({"version": openai.__version__}))
with OpenAI() as client:
    for number in range(int(sys.argv[1])):
        print(json.dumps({"scenario": f"cut-{number}", **read(client, f"raw/cut-{number}")}))
