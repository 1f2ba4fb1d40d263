// Runs an exported n8n workflow against Penstock, node by node, as n8n would: expressions, HTTP requests, code.
// It knows the kinds of nodes that the examples have, and fails on any other.
import { readFileSync } from "node:fs";

const [file, url, first] = process.argv.slice(2);
const workflow = JSON.parse(readFileSync(file, "utf8"));
const nodes = new Map(workflow.nodes.map((node) => [node.name, node]));
const outputs = new Map();

function scope(item) {
  const $ = (name) => ({ item: outputs.get(name).at(-1), first: () => outputs.get(name)[0], all: () => outputs.get(name) });
  return { $json: item.json, $env: { PENSTOCK_URL: url }, $, $input: { item, first: () => item, all: () => [item] } };
}

function run(code, item) {
  const names = scope(item);
  return new Function(...Object.keys(names), code)(...Object.values(names));
}

// As n8n reads a value: literal unless it begins with "=", and then with expressions in double braces.
function value(text, item) {
  if (!text.startsWith("=")) return text;
  return text.slice(1).replace(/\{\{([\s\S]*?)\}\}(?!\})/g, (_, inner) => run(`return (${inner})`, item));
}

async function carryOut(node, item) {
  const given = node.parameters;
  switch (node.type.replace("n8n-nodes-base.", "")) {
    case "webhook":
      return [{ json: { body: JSON.parse(first), headers: {} } }];
    case "manualTrigger":
    case "noOp":
      return [item];
    case "code": {
      const made = run(given.jsCode, item);
      return Array.isArray(made) ? made : [made];
    }
    case "respondToWebhook":
      return [{ json: JSON.parse(value(given.responseBody, item)) }];
    case "httpRequest": {
      const body = value(given.jsonBody, item);
      JSON.parse(body);
      const headers = { "content-type": "application/json", authorization: "Bearer anything" };
      const answer = await fetch(value(given.url, item), { method: given.method, headers, body });
      if (!answer.ok) throw new Error(`${node.name}: ${answer.status} ${await answer.text()}`);
      return [{ json: { statusCode: answer.status, headers: Object.fromEntries(answer.headers), body: await answer.json() } }];
    }
    default:
      throw new Error(`no node of the kind ${node.type} is known here`);
  }
}

function next(name, output) {
  return (workflow.connections[name]?.main[output] ?? []).map((one) => nodes.get(one.node));
}

async function follow(node, items, until) {
  if (node === until) return items;
  if (node.type.endsWith(".splitInBatches")) {
    const done = [];
    for (const item of items) {
      outputs.set(node.name, [item]);
      for (const one of next(node.name, 1)) done.push(...(await follow(one, [item], node)));
    }
    outputs.set(node.name, done);
    for (const one of next(node.name, 0)) await follow(one, done, until);
    return done;
  }
  let made = [];
  for (const item of items) {
    const own = await carryOut(node, item);
    outputs.set(node.name, own);
    made.push(...own);
  }
  outputs.set(node.name, made);
  for (const one of next(node.name, 0)) made = await follow(one, made, until);
  return made;
}

const aimedAt = new Set(Object.values(workflow.connections).flatMap((one) => one.main.flat().map((to) => to.node)));
const [start] = workflow.nodes.filter((node) => !aimedAt.has(node.name));
await follow(start, [{ json: {} }]);
console.log(JSON.stringify(Object.fromEntries([...outputs].map(([name, items]) => [name, items.map((one) => one.json)]))));
