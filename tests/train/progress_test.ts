import assert from "node:assert/strict";
import type { TrainEvent } from "../../train/events.ts";
import { niceTicks, plotSvg, plotText } from "../../train/plot.ts";
import { completeSettings } from "../../train/settings.ts";
import { formatCount, formatDuration, formatShare, progressReporter } from "../../train/progress.ts";

const start: TrainEvent = {
  event: "start",
  config: completeSettings({ steps: 5 }),
  device: "a device",
  parameters: 1000,
  vocabularySize: 256,
  microBatchSize: 4,
  bytes: 2 ** 20,
  memory: "weights 1.0 MiB",
  run: "runs/1",
  firstStep: 0,
};

const step = (step: number, loss = 2): TrainEvent => ({
  event: "step",
  step,
  loss,
  gradNorm: 1,
  learningRate: 1e-3,
  tokens: step * 100,
  tokensPerSecond: 1000,
  milliseconds: 100,
  modelFlopsUtilization: 0.31,
});

function report(events: TrainEvent[], options: { isTerminal: boolean; quiet?: boolean; width?: number }): string {
  let written = "";
  const reporter = progressReporter(
    { isTerminal: options.isTerminal, width: () => options.width ?? 80, write: (text) => void (written += text) },
    { quiet: options.quiet ?? false },
  );
  events.forEach(reporter);
  return written;
}

Deno.test("durations and counts read as people write them", () => {
  assert.deepEqual([0, 12.4, 59.6, 200, 3725, 360000].map(formatDuration), [
    "0 s",
    "12 s",
    "1 min 00 s",
    "3 min 20 s",
    "1 h 02 min",
    "100 h 00 min",
  ]);
  assert.equal(formatCount(1234567.4), "1,234,567");
});

Deno.test("on a terminal one line is rewritten and never wider than it; elsewhere lines are plain and few", () => {
  const events = [start, ...[1, 2, 3, 4, 5].map((n) => step(n))];
  const live = report(events, { isTerminal: true, width: 40 });
  const frames = live.split("\r\x1b[K").slice(1);
  assert.equal(frames.length, 5);
  for (const frame of frames) assert.ok(frame.length < 40, frame);
  const done: TrainEvent = {
    event: "done",
    step: 5,
    loss: 2,
    validationLoss: 2.5,
    seconds: 61,
    checkpoint: "runs/1/checkpoints/step-00000005",
    stopped: false,
  };
  const plain = report([...events, done], { isTerminal: false });
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(plain, /\x1b|\r/);
  assert.equal(plain.split("\n").filter((line) => line.startsWith("step")).length, 1);
  assert.match(plain, /done at step 5 in 1 min 01 s: loss 2\.0000, validation loss 2\.5000\n$/);
  assert.equal(report([...events, done], { isTerminal: false, quiet: true }).split("\n").length, 2);
});

Deno.test("compiling is shown: on a terminal as it goes, elsewhere only if it takes more than two seconds", () => {
  const compile = (done: number, seconds: number): TrainEvent => ({ event: "compile", done, total: 40, seconds });
  const live = report([compile(12, 0.6), compile(40, 1.9), start], { isTerminal: true });
  assert.ok(live.includes("compiling kernels 12 of 40\r\x1b[Kdevice"), live);
  assert.doesNotMatch(live, /compiled/);
  assert.equal(report([compile(12, 0.6), compile(40, 1.9)], { isTerminal: false }), "");
  const plain = report([compile(1, 0.6), compile(20, 2.5), compile(30, 3), compile(40, 3.51)], { isTerminal: false });
  assert.equal(plain, "compiling kernels 20 of 40\ncompiled 40 kernels in 3.5 s\n");
});

Deno.test("the live line tells the utilization where there is room, and its bar takes what is left of the line", () => {
  const frame = (width: number) => report([start, step(3)], { isTerminal: true, width }).split("\r\x1b[K")[1];
  assert.match(frame(100), /^step 3\/5 {2}loss 2\.0000 {2}1,000 tokens\/s {2}MFU 31% {2}\d s left {2}█{12}░{8}$/);
  assert.match(frame(72), /MFU 31% {2}\d s left {2}█+░+$/);
  assert.match(frame(60), /MFU 31% {2}\d s left$/);
  assert.match(frame(50), /1,000 tokens\/s {2}\d s left$/);
  for (let width = 10; width < 120; width++) assert.ok(frame(width).length < width, `${width}`);
  assert.deepEqual([0.0031, 0.0994, 0.0996, 0.43, 1.02].map(formatShare), ["0.3%", "9.9%", "10%", "43%", "102%"]);
});

Deno.test("niceTicks() are round numbers inside the range", () => {
  assert.deepEqual(niceTicks(1.9, 5.6, 6), [2, 3, 4, 5]);
  assert.deepEqual(niceTicks(0, 1300, 6), [0, 500, 1000]);
  assert.deepEqual(niceTicks(2, 2.05, 5), [2, 2.01, 2.02, 2.03, 2.04, 2.05]);
});

Deno.test("plots hold every validation point inside the frame, for one step as for many", () => {
  for (const count of [1, 7, 5000]) {
    const training = Array.from({ length: count }, (_, i) => ({ step: i + 1, loss: 5 / (1 + i / 10) }));
    const validation = training.filter((_, i) => i % 5 === 0).slice(0, 8);
    const svg = plotSvg({ training, validation }, "a <run>");
    assert.match(svg, /a &lt;run>/);
    assert.equal([...svg.matchAll(/<circle class="dot" cx="([\d.]+)" cy="([\d.]+)"/g)].length - 1, validation.length);
    assert.doesNotMatch(svg, /NaN|Infinity/);
    const text = plotText({ training, validation }, 60, 12);
    assert.ok(text.split("\n").every((line) => line.length <= 62), text);
    assert.match(text, new RegExp(`step ${count}`));
  }
});

Deno.test("with f16 the loss scale is shown, and how many steps were skipped", () => {
  const scaled = (skipped: number) =>
    report([start, { ...step(1), lossScale: 32768, skipped } as TrainEvent], { isTerminal: false });
  assert.match(scaled(0), /tokens\/s .* loss scale 32,768 {2}\d+ s left/);
  assert.match(scaled(1), /loss scale 32,768, 1 step skipped {2}/);
  assert.match(scaled(3), /loss scale 32,768, 3 steps skipped {2}/);
  assert.doesNotMatch(report([start, step(1)], { isTerminal: false }), /loss scale/);
});
