// Answer one text with an ONNX file as a browser does, by WebAssembly: node web.mjs FILE NUMBERS. Prints the logits as JSON.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

const [file, numbers] = process.argv.slice(2);
const tokens = JSON.parse(numbers);
ort.env.wasm.numThreads = 1;
const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(file)), { executionProviders: ["wasm"] });
const feeds = {};
for (const name of session.inputNames) {
  feeds[name] = new ort.Tensor("int64", BigInt64Array.from(tokens[name].map(BigInt)), [1, tokens[name].length]);
}
const { logits } = await session.run(feeds);
console.log(JSON.stringify([...logits.data]));
