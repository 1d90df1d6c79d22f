// Classify a text with the exported folder ROOT/NAME: node classify.mjs ROOT NAME DTYPE TEXT. Prints the classes as JSON.
import { env, pipeline } from "@huggingface/transformers";

const [root, name, dtype, text] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = root;
const classify = await pipeline("text-classification", name, { dtype });
console.log(JSON.stringify(await classify(text, { top_k: null })));
