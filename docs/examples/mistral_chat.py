import os

from mistralai.client import Mistral

client = Mistral(server_url=os.environ["PENSTOCK_URL"], api_key="anything")  # http://127.0.0.1:4020, without /v1
question = {"role": "user", "content": "How high is the water?"}
with client.chat.stream(model="general", messages=[question]) as stream:
    for event in stream:
        print(event.data.choices[0].delta.content, end="", flush=True)
print()
