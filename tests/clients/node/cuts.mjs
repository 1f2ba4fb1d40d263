// What a program does with openai-node where streams are cut: `../cuts.py` is the same for openai-python.
// The first argument names the installed package, the second says how many there are.

const [, , packageName, count] = process.argv;
const { default: OpenAI, APIError } = await import(packageName);
const { VERSION } = await import(`${packageName}/version`);

async function read(client, model) {
  const seen = { text: "", finish: null, raised: null, own: false };
  try {
    const messages = [{ role: "user", content: "?" }];
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) {
      for (const choice of chunk.choices) {
        seen.text += choice.delta.content ?? "";
        seen.finish = choice.finish_reason ?? seen.finish;
      }
    }
  } catch (raised) {
    seen.raised = String(raised);
    seen.own = raised instanceof APIError;
  }
  return seen;
}

console.log(JSON.stringify({ version: VERSION }));
const client = new OpenAI();
for (let number = 0; number < Number(count); number += 1) {
  console.log(JSON.stringify({ scenario: `cut-${number}`, ...(await read(client, `raw/cut-${number}`)) }));
}
