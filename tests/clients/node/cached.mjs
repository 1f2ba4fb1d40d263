// What openai-node reads of one question, asked in both forms: `../test_cached.py` compares. Prints one JSON line.

const [, , packageName, model, first] = process.argv;
const { default: OpenAI } = await import(packageName);
const client = new OpenAI({ maxRetries: 0 });
const asked = { model, messages: [{ role: "user", content: "?" }], n: 2, logprobs: true };

async function whole() {
  const { data, response } = await client.chat.completions.create(asked).withResponse();
  return { cache: response.headers.get("x-penstock-cache"), choices: data.choices, usage: data.usage ?? null };
}

async function streamed(options) {
  const { data, response } = await client.chat.completions
    .create({ ...asked, stream: true, ...options })
    .withResponse();
  const choices = [];
  let usage = null;
  for await (const chunk of data) {
    usage = chunk.usage ?? usage;
    for (const { index, delta, finish_reason, logprobs } of chunk.choices) {
      const choice = (choices[index] ??= { content: "", calls: [], logprobs: [], finish: null });
      choice.content += delta.content ?? "";
      choice.logprobs.push(...(logprobs?.content ?? []));
      choice.finish = finish_reason ?? choice.finish;
      for (const call of delta.tool_calls ?? []) {
        const known = (choice.calls[call.index] ??= { id: call.id, name: call.function.name, arguments: "" });
        known.arguments += call.function.arguments ?? "";
      }
    }
  }
  return { cache: response.headers.get("x-penstock-cache"), choices, usage };
}

const seen = {};
if (first === "stream") {
  seen.silent = await streamed({});
}
seen.whole = await whole();
seen.asking = await streamed({ stream_options: { include_usage: true } });
seen.silent ??= await streamed({});
console.log(JSON.stringify(seen));
