// Trains a small Llama on a text file through the library, shows its loss, and lets it write.
//   deno run -A examples/train.ts [text file or catalogue name]
import { generate, isRankWorker, train } from "../mod.ts";

if (!isRankWorker()) {
  const { run, validationLoss } = await train(
    {
      data: Deno.args[0] ?? "moby-dick",
      family: "llama",
      kvHeads: 2,
      steps: 100,
      evalInterval: 50,
      out: "runs/example",
    },
    {
      onEvent: (event) =>
        event.event === "step" && event.step % 10 === 0 && console.log(event.step, event.loss.toFixed(3)),
    },
  );
  console.log(`validation loss ${validationLoss.toFixed(3)} nats per byte`);
  const { text } = await generate({ checkpoint: run, prompt: "The ", tokens: 120 });
  console.log(`The ${text}`);
}
