// What a program does with openai-node, once for each scenario; `../scenarios.py` is the same for openai-python.
// Prints one JSON line per scenario: its name and what the program saw. Nothing is judged here; `../expected.py` does that.
// The SDK is configured by OPENAI_BASE_URL and OPENAI_API_KEY alone. The first argument names the installed package.

const [, , packageName, ...wanted] = process.argv;
const { default: OpenAI, APIError } = await import(packageName);
const { VERSION } = await import(`${packageName}/version`);

const ASKED = "How high is the water?";
const MESSAGES = [{ role: "user", content: ASKED }];
const TOOLS = [
  {
    type: "function",
    function: {
      name: "forecast",
      description: "The water level of the coming days.",
      parameters: {
        type: "object",
        properties: { river: { type: "string" }, days: { type: "integer" } },
        required: ["river", "days"],
      },
    },
  },
];
const LEVEL = {
  type: "json_schema",
  json_schema: {
    name: "level",
    strict: true,
    schema: {
      type: "object",
      properties: { river: { type: "string" }, metres: { type: "number" }, rising: { type: "boolean" } },
      required: ["river", "metres", "rising"],
      additionalProperties: false,
    },
  },
};
const BROKEN = ["cut:3", "reset:3", "mid-event:3", "clean-end:3", "stall:3", "error-event:3", "bad-json:3"];
const FORMS = ["mistral", "fastapi", "gemini", "text", "html"];

// Streams -----------------------------------------------------------------------------------------------------------

const open = {
  chat: (client, model) => client.chat.completions.create({ model, messages: MESSAGES, stream: true }),
  completions: (client, model) => client.completions.create({ model, prompt: ASKED, stream: true }),
  responses: (client, model) => client.responses.create({ model, input: ASKED, stream: true }),
};
const textOf = {
  chat: (event) => event.choices[0]?.delta.content ?? "",
  completions: (event) => event.choices[0]?.text ?? "",
  responses: (event) => (event.type === "response.output_text.delta" ? event.delta : ""),
};

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

const joined = (api, events) => events.map(textOf[api]).join("");
const finishes = (events) => events.map((event) => event.choices[0]?.finish_reason).filter(Boolean);

async function broken(client, api, model) {
  let pieces = 0;
  let error = null;
  try {
    for await (const event of await open[api](client, model)) pieces += textOf[api](event) ? 1 : 0;
  } catch (raised) {
    error = told(raised);
  }
  return { pieces, error };
}

async function leave(client, api, model) {
  for await (const event of await open[api](client, model)) if (textOf[api](event)) break;
  return { left: Date.now() / 1000 };
}

// Errors ------------------------------------------------------------------------------------------------------------

function told(raised) {
  const facts = {
    class: raised.constructor.name,
    message: raised.message,
    code: raised.code ?? null,
    status: raised.status ?? null,
    request_id: raised.requestID ?? null,
  };
  if (raised instanceof APIError && raised.headers) facts.retry_after = raised.headers.get("retry-after");
  return facts;
}

async function refused(ask) {
  try {
    await ask();
  } catch (raised) {
    return { error: told(raised) };
  }
  return { error: null };
}

const ask = (client, model, more = {}) => client.chat.completions.create({ model, messages: MESSAGES, ...more });

// Scenarios ---------------------------------------------------------------------------------------------------------

async function chat(client, model = "chat") {
  const answer = await ask(client, model);
  return {
    text: answer.choices[0].message.content,
    finish: answer.choices[0].finish_reason,
    model: answer.model,
    tokens: answer.usage.total_tokens,
    request_id: answer._request_id,
  };
}

async function chatStream(client, more = {}) {
  const whole = (await ask(client, "chat")).choices[0].message.content;
  const chunks = await all(await ask(client, "chat", { stream: true, ...more }));
  return {
    text_equals_whole: joined("chat", chunks) === whole,
    finish: finishes(chunks),
    without_choices: chunks.filter((chunk) => chunk.choices.length === 0).length,
    usages: chunks.filter((chunk) => chunk.usage).map((chunk) => chunk.usage.total_tokens),
  };
}

async function tools(client) {
  const chunks = await all(await ask(client, "chat", { stream: true, tools: TOOLS }));
  const calls = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? []);
  const text = calls.map((call) => call.function.arguments ?? "").join("");
  const whole = (await ask(client, "chat", { tools: TOOLS })).choices[0].message.tool_calls[0].function;
  return {
    names: calls.map((call) => call.function.name).filter(Boolean),
    arguments: JSON.parse(text),
    equals_whole: text === whole.arguments,
    finish: finishes(chunks),
  };
}

async function structured(client) {
  const answer = await client.chat.completions.parse({ model: "chat", messages: MESSAGES, response_format: LEVEL });
  return { parsed: JSON.parse(answer.choices[0].message.content) };
}

async function embeddings(client) {
  const input = [ASKED, "Low."];
  const packed = await client.embeddings.create({ model: "chat", input }); // the SDK asks for base64, and unpacks it
  const floats = await client.embeddings.create({ model: "chat", input, encoding_format: "float" });
  const [one, other] = [packed.data[0].embedding, floats.data[0].embedding];
  return {
    vectors: [packed.data.length, floats.data.length],
    size: one.length,
    equal: one.length === other.length && one.every((value, at) => Math.abs(value - other[at]) < 1e-6),
    tokens: packed.usage.total_tokens,
  };
}

async function responses(client) {
  const answer = await client.responses.create({ model: "chat", input: ASKED });
  return { text: answer.output_text, status: answer.status, tokens: answer.usage.total_tokens };
}

async function responsesStream(client) {
  const whole = (await client.responses.create({ model: "chat", input: ASKED })).output_text;
  const events = await all(await open.responses(client, "chat"));
  const last = events.at(-1);
  return {
    text_equals_whole: joined("responses", events) === whole,
    first: events[0].type,
    last: last.type,
    tokens: last.response.usage.total_tokens,
    final_text_equals_whole: last.response.output.flatMap((item) => item.content).map((part) => part.text).join("") === whole,
  };
}

async function completions(client) {
  const whole = await client.completions.create({ model: "chat", prompt: ASKED });
  const chunks = await all(await open.completions(client, "chat"));
  return {
    text: whole.choices[0].text,
    tokens: whole.usage.total_tokens,
    text_equals_whole: joined("completions", chunks) === whole.choices[0].text,
    finish: finishes(chunks),
  };
}

async function models(client) {
  const listed = (await all(await client.models.list())).map((model) => model.id);
  const one = await client.models.retrieve("chat");
  const target = await client.models.retrieve("sim/plain");
  return { listed, retrieved: [one.id, one.object, target.id] };
}

async function headers(client) {
  const { data, response } = await ask(client, "chat").withResponse();
  const shown = Object.fromEntries([...response.headers].filter(([name]) => name.startsWith("x-penstock-")));
  const streamed = await ask(client, "chat", { stream: true }).withResponse();
  const pieces = (await all(streamed.data)).filter((chunk) => textOf.chat(chunk)).length;
  return {
    shown,
    request_id: response.headers.get("x-request-id"),
    parsed_id_is_the_same: data._request_id === response.headers.get("x-request-id"),
    stream_route: streamed.response.headers.get("x-penstock-route"),
    stream_id: streamed.response.headers.get("x-request-id"),
    stream_pieces: pieces,
  };
}

const SCENARIOS = {
  chat,
  "chat direct target": (client) => chat(client, "sim/plain"),
  "chat known name": (client) => chat(client, "gpt-4o-mini"),
  "chat after fallback": (client) => chat(client, "fallback"),
  "chat stream": chatStream,
  "chat stream usage": (client) => chatStream(client, { stream_options: { include_usage: true } }),
  tools,
  structured,
  embeddings,
  responses,
  "responses stream": responsesStream,
  completions,
  models,
  headers,
  400: (client) => refused(() => ask(client, "sim/400")),
  "401 upstream": (client) => refused(() => ask(client, "sim/401")),
  404: (client) => refused(() => ask(client, "chta")),
  "404 retrieve": (client) => refused(() => client.models.retrieve("nobody")),
  429: (client) => refused(() => ask(client.withOptions({ maxRetries: 0 }), "sim/429:30")),
  "429 retried": (client) => chat(client, "sim/once:429:retried"),
  502: (client) => refused(() => ask(client, "raw/garbage")),
  "502 stream": (client) => refused(async () => all(await ask(client, "sim/head-then-fin", { stream: true }))),
  503: (client) => refused(() => ask(client, "raw/status:503")),
  504: (client) => refused(() => ask(client, "late")),
  "invalid body": (client) => refused(() => ask(client, "chat", { n: 1000 })),
};
for (const api of Object.keys(open)) {
  for (const fault of BROKEN) SCENARIOS[`${fault} ${api}`] = (client) => broken(client, api, `sim/${fault}`);
  SCENARIOS[`left ${api}`] = (client) => leave(client, api, "sim/paced:100:50ms");
}
for (const form of FORMS) SCENARIOS[`form ${form}`] = (client) => refused(() => ask(client, `raw/${form}`));

console.log(JSON.stringify({ sdk: "openai-node", version: VERSION }));
const client = new OpenAI();
for (const name of wanted.length ? wanted : Object.keys(SCENARIOS)) {
  let facts;
  try {
    facts = await SCENARIOS[name](client);
  } catch (raised) {
    facts = { crash: raised.stack ?? String(raised) };
  }
  console.log(JSON.stringify({ scenario: name, ...facts }));
}
