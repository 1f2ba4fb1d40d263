from anthropic import Anthropic

client = Anthropic()
question = {"role": "user", "content": "How high is the water?"}
with client.messages.stream(model="general", max_tokens=500, messages=[question]) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()
