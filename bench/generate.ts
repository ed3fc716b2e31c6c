/** Generation from eight prompts over two pipeline stages against one rank, with one core for each software device. */

const entry = new URL("../cli.ts", import.meta.url).pathname;
/** Times that each is run, in turns. */
const turns = 3;

/** What was measured; medians. */
export interface GenerationResult {
  /** Tokens per second of all texts together. */
  readonly alone: number;
  readonly together: number;
  readonly speedup: number;
  /** Of a text, from its prompt going in, on two stages. */
  readonly firstTokenMilliseconds: number;
}

const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1];

async function muster(args: string): Promise<string> {
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", entry, ...args.split(" ")],
    env: { LP_NUM_THREADS: "1" },
  }).output();
  const text = new TextDecoder().decode(stderr);
  if (code !== 0) throw new Error(text);
  return text;
}

/** Writes with a model of 8 blocks of width 512. */
export async function measureGeneration(): Promise<GenerationResult> {
  const folder = Deno.makeTempDirSync();
  try {
    const prompts = `${folder}/prompts.txt`;
    Deno.writeTextFileSync(prompts, Array.from({ length: 8 }, (_, i) => `${i}. Call me\n`).join(""));
    await muster(
      `train --family gpt2 --layers 8 --heads 8 --width 512 --sequence-length 128 --batch-size 1 --eval-batches 1 ` +
        `--steps 1 --quiet --out ${folder}/run`,
    );
    const run = async (mesh: string) => {
      const told = await muster(`generate --checkpoint ${folder}/run --prompts ${prompts} --tokens 40 ${mesh}`);
      const [, speed, first] = /([\d.]+) tokens\/s: first token after (\d+) ms/.exec(told)!;
      return { speed: Number(speed), first: Number(first) };
    };
    const alone: number[] = [];
    const together: Awaited<ReturnType<typeof run>>[] = [];
    for (let turn = 0; turn < turns; turn++) {
      alone.push((await run("--devices 0")).speed);
      together.push(await run("--pp 2 --devices 0,0"));
    }
    const speeds = { alone: median(alone), together: median(together.map(({ speed }) => speed)) };
    return {
      ...speeds,
      speedup: speeds.together / speeds.alone,
      firstTokenMilliseconds: median(together.map(({ first }) => first)),
    };
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}
