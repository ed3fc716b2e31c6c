import assert from "node:assert/strict";
import { UserError } from "../../errors.ts";
import type { TrainEvent } from "../../train/events.ts";
import type { GivenSettings } from "../../train/settings.ts";
import { traceSteps } from "../../train/trace_file.ts";
import { train } from "../../train/trainer.ts";
import { withFolder } from "../folder.ts";

const text = Array.from({ length: 300 }, (_, i) => `${i}. the whale swam for ${i % 7} days\n`).join("");

/** A span of the timeline; times in microseconds. */
interface Span {
  readonly ph: string;
  readonly name: string;
  readonly cat: string;
  readonly ts: number;
  readonly dur: number;
  readonly pid: number;
  readonly tid: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

/** A span with those directly in it. */
interface Node extends Span {
  readonly end: number;
  readonly children: Node[];
}

function inFolder(body: (folder: string, small: GivenSettings) => Promise<void>): Promise<void> {
  return withFolder({ "text.txt": text }, (folder) =>
    body(folder, {
      data: `${folder}/text.txt`,
      layers: 2,
      heads: 2,
      width: 32,
      sequenceLength: 16,
      batchSize: 4,
      steps: 4,
      evalInterval: 2,
      evalBatches: 1,
      checkpointInterval: 0,
    }));
}

async function collect(settings: GivenSettings, onEvent: (event: TrainEvent) => void = () => {}) {
  const losses: number[] = [];
  const result = await train(settings, {
    onEvent(event) {
      if (event.event === "step" || event.event === "evaluation") losses.push(event.loss);
      onEvent(event);
    },
  });
  return { result, losses };
}

const read = (path: string): Span[] => JSON.parse(Deno.readTextFileSync(path));

/** The spans of a track as a tree; fails if they are out of order, or if two overlap in part. */
function nest(events: readonly Span[], rank: number): Node[] {
  const top: Node[] = [];
  const open: Node[] = [];
  let before = 0;
  for (const span of events.filter(({ ph, tid }) => ph === "X" && tid === rank)) {
    // Times are whole nanoseconds in decimal: sums in binary are a little off.
    const end = Math.round((span.ts + span.dur) * 1e3) / 1e3;
    assert.ok(span.ts >= before && span.dur >= 0, `${span.name} at ${span.ts} comes behind ${before}`);
    before = span.ts;
    while (open.length > 0 && open[open.length - 1].end <= span.ts) open.pop();
    const parent = open.at(-1);
    assert.ok(!parent || end <= parent.end, `${span.name} ends at ${end}, ${parent?.name} around it at ${parent?.end}`);
    const node = { ...span, end, children: [] };
    (parent?.children ?? top).push(node);
    open.push(node);
  }
  return top;
}

const all = (nodes: readonly Node[]): Node[] => nodes.flatMap((node) => [node, ...all(node.children)]);

/** What every track of a run of four steps has, whatever the layout. */
function checkTrack(track: readonly Node[], rank: number): void {
  const names = track.map(({ name }) => name);
  assert.deepEqual(names, [
    "step 1",
    "step 2",
    "the evaluation behind step 2",
    "step 3",
    "step 4",
    "the evaluation behind step 4",
    "the wait for the checkpoint before that of step 4 to reach the disk",
    "the checkpoint of step 4",
  ]);
  const spans = all(track);
  for (const category of ["step", "phase", "collective", "wait", "copy", "device"]) {
    assert.ok(spans.some(({ cat }) => cat === category), `rank ${rank} has no span of the kind ${category}`);
  }
  for (const node of spans) {
    assert.equal(node.pid, 0);
    for (const child of node.children) {
      // Ranks wait for each other, and add, in collectives only.
      if (child.cat === "wait" || child.cat === "sum") {
        assert.equal(node.cat, "collective", `${child.name} is in ${node.name}`);
      }
      if (child.cat === "wait") assert.equal(child.name, `waits for rank ${1 - rank}`);
      if (child.cat === "phase") assert.equal(node.cat, "step", `${child.name} is in ${node.name}`);
    }
  }
}

const phases = ({ children }: Node) => children.filter(({ cat }) => cat === "phase").map(({ name }) => name);

Deno.test("--trace writes a track for each of two data-parallel ranks and changes no bit of the losses", () =>
  inFolder(async (folder, small) => {
    const dp: GivenSettings = { ...small, devices: "0,0", dp: 2, microBatchSize: 1 };
    const plain = await collect({ ...dp, out: `${folder}/plain` });
    const traced = await collect({ ...dp, out: `${folder}/traced`, trace: `${folder}/t.json` });
    assert.deepEqual(traced.losses, plain.losses);
    const events = read(`${folder}/t.json`);
    const metadata = events.filter(({ ph }) => ph === "M").map(({ name, tid, args }) => [name, tid, args!.name]);
    assert.match(String(metadata[0][2]), /^machine 0: ./);
    const threads = metadata.filter(([name]) => name === "thread_name");
    assert.deepEqual(threads, [["thread_name", 0, "rank 0"], ["thread_name", 1, "rank 1"]]);
    const counted = events.filter(({ ph }) => ph === "C");
    assert.equal(counted.length, 4);
    for (const { name, args } of counted) {
      const share = Number(args!["%"]);
      assert.ok(name === "model FLOPs utilization" && share >= 0 && share < 100, `${name} ${share}`);
    }
    const collectivesOf = (rank: number) =>
      events.filter(({ tid, cat }) => tid === rank && cat === "collective").map(({ name }) => name);
    assert.deepEqual(collectivesOf(0), collectivesOf(1));
    for (const rank of [0, 1]) {
      const track = nest(events, rank);
      checkTrack(track, rank);
      for (const step of track.filter(({ cat }) => cat === "step")) {
        assert.deepEqual(phases(step), [
          "forward and backward of micro-batch 1",
          "forward and backward of micro-batch 2",
          "the optimizer",
          "reading the gradient norm and the loss",
        ]);
        const collectives = all([step]).filter(({ cat }) => cat === "collective");
        const reductions = collectives.filter(({ name }) => name.startsWith("all-reduce of bank"));
        assert.ok(reductions.length > 0, `nothing is reduced in ${step.name}`);
        const parts = new Set(reductions.flatMap(({ children }) => children.map(({ name }) => name)));
        for (const part of ["copies from the device", "sums", "copies to the device"]) {
          assert.ok(parts.has(part), `${part} is in no all-reduce of ${step.name}`);
        }
        assert.ok(collectives.some(({ name }) => name === "the sum of losses"));
      }
    }
  }));

Deno.test("--trace of a pipeline shows each micro-batch's forward before its backward, and messages after they were sent", () =>
  inFolder(async (folder, small) => {
    const pp: GivenSettings = { ...small, devices: "0,0", pp: 2, microBatches: 4, pipelineSchedule: "zero-bubble" };
    const plain = await collect({ ...pp, out: `${folder}/plain` });
    const traced = await collect({ ...pp, out: `${folder}/traced`, trace: `${folder}/t.json` });
    assert.deepEqual(traced.losses, plain.losses);
    const events = read(`${folder}/t.json`);
    const tracks = [0, 1].map((rank) => nest(events, rank));
    tracks.forEach((track, rank) => {
      checkTrack(track, rank);
      for (const step of track.filter(({ cat }) => cat === "step")) {
        const names = phases(step);
        assert.equal(names.length, 3 * 4 + 2);
        for (let i = 1; i <= 4; i++) {
          const places = ["forward", "backward", "weights"].map((kind) => names.indexOf(`${kind} of micro-batch ${i}`));
          assert.ok(places[0] >= 0 && places[0] < places[1] && places[1] < places[2], `${names}`);
        }
        assert.deepEqual(names.slice(-2), ["the optimizer", "reading the gradient norm and the loss"]);
      }
    });
    const named = (rank: number, name: string) => all(tracks[rank]).filter((node) => node.name === name);
    for (const [what, from] of [["activations 1", 0], ["gradients 1", 1]] as const) {
      const sent = named(from, `send of ${what}`);
      const received = named(1 - from, `receive of ${what}`);
      assert.ok(sent.length >= 4 * 4);
      assert.equal(sent.length, received.length);
      sent.forEach((send, i) => assert.ok(received[i].end > send.ts, `${send.ts} ${received[i].end}`));
    }
  }));

Deno.test("--trace ends with the last of its steps, and can be read while the run goes", () =>
  inFolder(async (folder, small) => {
    const trace = `${folder}/t.json`;
    let found: Span[] = [];
    await collect(
      { ...small, layers: 1, steps: traceSteps + 2, evalInterval: 0, out: `${folder}/run`, trace },
      (event) => {
        if (event.event === "step" && event.step === 10) found = JSON.parse(`${Deno.readTextFileSync(trace)}]`);
      },
    );
    const steps = (spans: readonly Span[]) => spans.filter(({ cat }) => cat === "step").map(({ name }) => name);
    const expected = Array.from({ length: traceSteps }, (_, i) => `step ${i + 1}`);
    assert.deepEqual(steps(found), expected.slice(0, 9));
    assert.deepEqual(steps(read(trace)), expected);
    assert.ok(!read(trace).some(({ name }) => name.startsWith("the evaluation")));
  }));

Deno.test("--trace: a run that fails leaves whole JSON, a resumed one leaves it alone, a bad path is the user's mistake", () =>
  inFolder(async (folder, small) => {
    const trace = `${folder}/t.json`;
    Deno.env.set("MUSTER_FAULT", "rank=0,step=3,kind=throw");
    try {
      await assert.rejects(collect({ ...small, checkpointInterval: 1, out: `${folder}/run`, trace }));
    } finally {
      Deno.env.delete("MUSTER_FAULT");
    }
    const track = nest(read(trace), 0).filter(({ cat }) => cat === "step").map(({ name }) => name);
    assert.deepEqual(track, ["step 1", "step 2"]);

    const before = Deno.readTextFileSync(trace);
    await collect({ resume: `${folder}/run`, steps: 5 });
    assert.equal(Deno.readTextFileSync(trace), before);

    const events: TrainEvent[] = [];
    const nowhere = collect(
      { ...small, out: `${folder}/b`, trace: `${folder}/no/t.json` },
      (event) => events.push(event),
    );
    await assert.rejects(nowhere, (error: Error) => {
      assert.ok(error instanceof UserError);
      assert.match(error.message, /^Cannot write the timeline .*no\/t\.json \(.*\): choose another file with --trace$/);
      return true;
    });
    assert.ok(events.every(({ event }) => event === "message"));
  }));
