import { openai } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const prompt = "How high is the water?";

// openai(name) asks the Responses API, openai.chat(name) chat completions. onError is where a broken answer says why.
const { textStream } = streamText({ model: openai("general"), prompt, onError: ({ error }) => console.error(error) });
for await (const text of textStream) process.stdout.write(text);
console.log();

const penstock = createOpenAICompatible({ name: "penstock", baseURL: process.env.OPENAI_BASE_URL });
console.log((await generateText({ model: penstock("general"), prompt })).text);
