// What a program does with the AI SDK, configured by OPENAI_BASE_URL and OPENAI_API_KEY.
// Prints one JSON line per scenario: its name and what the program saw. Nothing is judged here; `../rows.py` does that.

import { readFileSync } from "node:fs";
import { openai } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embed, generateText, isStepCount, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const ASKED = "How high is the water?";
const LEVEL = z.object({ river: z.string(), metres: z.number(), rising: z.boolean() });
const compatible = createOpenAICompatible({
  name: "penstock",
  baseURL: process.env.OPENAI_BASE_URL,
  supportsStructuredOutputs: true,
});
const PROVIDERS = { responses: openai, chat: openai.chat, compatible };
const CUT_AFTER = { responses: 3, chat: 4, compatible: 5 };

async function whole(model) {
  const answer = await generateText({ model, prompt: ASKED });
  return { text: answer.text, tokens: answer.usage.totalTokens, finish: answer.finishReason };
}

// `told` is what onError was given, `error` what the loop threw, `finish` how the promise of the finish ended.
async function stream(model) {
  const told = [];
  let pieces = 0;
  let text = "";
  let error = null;
  const streaming = streamText({ model, prompt: ASKED, onError: ({ error: given }) => told.push(seen(given)) });
  try {
    for await (const piece of streaming.textStream) {
      pieces += piece ? 1 : 0;
      text += piece;
    }
  } catch (raised) {
    error = seen(raised);
  }
  let finish = null;
  try {
    finish = await streaming.finishReason;
  } catch (raised) {
    finish = seen(raised);
  }
  return { pieces, text, told, error, finish };
}

async function streamed(model) {
  const { text } = await whole(model);
  const facts = await stream(model);
  return { ...facts, text: undefined, text_equals_whole: facts.text === text };
}

// The loop whole: a tool is called, its result is sent, and an answer comes.
async function tools(model) {
  const calls = [];
  const forecast = tool({
    description: "The water level of the coming days.",
    inputSchema: z.object({ river: z.string(), days: z.number().int() }),
    execute: async (input) => {
      calls.push(["forecast", input]);
      return "2 m";
    },
  });
  const stopWhen = (stepCountIs ?? isStepCount)(3);
  const answer = await generateText({ model, prompt: ASKED, tools: { forecast }, stopWhen });
  return { calls, steps: answer.steps.length, text: answer.text };
}

async function structured(model) {
  const answer = await generateText({ model, prompt: ASKED, output: Output.object({ schema: LEVEL }) });
  return { parsed: answer.output };
}

async function refused(model) {
  try {
    await generateText({ model, prompt: ASKED });
  } catch (raised) {
    return { error: { ...seen(raised), status: raised.statusCode } };
  }
  return { error: null };
}

const seen = (error) => ({ class: error.name, message: error.message ?? String(error) });

// The document's own file, with what it prints caught.
async function example() {
  const write = process.stdout.write;
  let printed = "";
  process.stdout.write = (text) => {
    printed += text;
    return true;
  };
  try {
    await import("./ai_sdk.mjs");
  } finally {
    process.stdout.write = write;
  }
  return { printed };
}

const SCENARIOS = { example };
for (const [name, provider] of Object.entries(PROVIDERS)) {
  SCENARIOS[name] = () => whole(provider("general"));
  SCENARIOS[`${name} stream`] = () => streamed(provider("general"));
  SCENARIOS[`${name} cut`] = () => stream(provider(`sim/cut:${CUT_AFTER[name]}`));
  SCENARIOS[`${name} tools`] = () => tools(provider("general"));
  SCENARIOS[`${name} structured`] = () => structured(provider("general"));
  SCENARIOS[`${name} 404`] = () => refused(provider("generl"));
}
SCENARIOS.embeddings = async () => ({
  size: (await embed({ model: openai.embedding("general"), value: ASKED })).embedding.length,
});

const { version } = JSON.parse(readFileSync(new URL("node_modules/ai/package.json", import.meta.url)));
console.log(JSON.stringify({ version }));
for (const [scenario, run] of Object.entries(SCENARIOS)) {
  let facts;
  try {
    facts = await run();
  } catch (raised) {
    facts = { crash: raised.stack };
  }
  console.log(JSON.stringify({ scenario, ...facts }));
}
