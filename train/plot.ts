/**
 * The loss curve of a run, as SVG and as text.
 * @module
 */

import { UserError } from "../errors.ts";
import { readMetrics } from "./run_folder.ts";

/** A point of a curve. */
export interface Point {
  readonly step: number;
  readonly loss: number;
}

/** Losses of a run. */
export interface Curves {
  readonly training: readonly Point[];
  readonly validation: readonly Point[];
}

/** Reads the curves of a run's `metrics.jsonl`. */
export function readCurves(run: string): Curves {
  const events = readMetrics(run);
  const pick = (kind: string) =>
    events.flatMap((event) =>
      event.event === kind && "loss" in event && Number.isFinite(event.loss)
        ? [{ step: event.step, loss: event.loss }]
        : []
    );
  const curves = { training: pick("step"), validation: pick("evaluation") };
  if (curves.training.length === 0) {
    throw new UserError(`${run} has no metrics.jsonl with steps in it: name the folder of a run`);
  }
  return curves;
}

/** An exponential mean, corrected for its start. */
function smooth(points: readonly Point[]): Point[] {
  const keep = 1 - 1 / Math.min(20, Math.max(1, points.length / 20));
  let mean = 0;
  let weight = 0;
  return points.map(({ step, loss }) => {
    mean = keep * mean + (1 - keep) * loss;
    weight = keep * weight + (1 - keep);
    return { step, loss: mean / weight };
  });
}

/** Round numbers that cover a range. */
export function niceTicks(low: number, high: number, count: number): number[] {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999)!;
  const ticks: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    ticks.push(Number((i * step).toPrecision(12)));
  }
  return ticks;
}

interface Frame {
  readonly lastStep: number;
  readonly low: number;
  readonly high: number;
}

function frame({ training, validation }: Curves): Frame {
  const losses = [...smooth(training), ...validation].map(({ loss }) => loss);
  const low = Math.min(...losses);
  const high = Math.max(...losses);
  const margin = Math.max(0.05, (high - low) * 0.05);
  return { lastStep: training[training.length - 1].step, low: Math.max(0, low - margin), high: high + margin };
}

const escape = (text: string) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/** The curves as an SVG document that reads on light and dark pages. */
export function plotSvg(curves: Curves, title: string): string {
  const [width, height, left, right, top, bottom] = [800, 440, 64, 24, 48, 56];
  const { lastStep, low, high } = frame(curves);
  const x = (step: number) => left + (width - left - right) * step / lastStep;
  const y = (loss: number) =>
    top + (height - top - bottom) * (high - Math.min(high, Math.max(low, loss))) / (high - low);
  const path = (points: readonly Point[]) => {
    const stride = Math.max(1, Math.floor(points.length / 2000));
    return points.filter((_, i) => i % stride === 0 || i === points.length - 1)
      .map(({ step, loss }, i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`).join("");
  };
  const last = curves.validation[curves.validation.length - 1];
  const labels = niceTicks(low, high, 6).map((loss) =>
    `<line class="grid" x1="${left}" x2="${width - right}" y1="${y(loss).toFixed(1)}" y2="${y(loss).toFixed(1)}"/>` +
    `<text x="${left - 10}" y="${(y(loss) + 4).toFixed(1)}" text-anchor="end">${loss}</text>`
  );
  const steps = niceTicks(0, lastStep, 6).map((step) =>
    `<text x="${x(step).toFixed(1)}" y="${height - bottom + 20}" text-anchor="middle">${
      step.toLocaleString("en-US")
    }</text>`
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>${escape(title)}</title>
<style>
text { font: 13px system-ui, sans-serif; fill: #57606a }
.title { font-size: 16px; font-weight: 600; fill: #24292f }
.back { fill: #ffffff }
.grid { stroke: #d0d7de; stroke-width: 1 }
.raw { fill: none; stroke: #0969da; stroke-opacity: 0.25; stroke-width: 1 }
.training { fill: none; stroke: #0969da; stroke-width: 2 }
.validation { fill: none; stroke: #cf222e; stroke-width: 2 }
.dot { fill: #cf222e }
@media (prefers-color-scheme: dark) {
  text { fill: #8b949e } .title { fill: #e6edf3 } .back { fill: #0d1117 } .grid { stroke: #30363d }
}
</style>
<rect class="back" width="${width}" height="${height}"/>
<text class="title" x="${left}" y="28">${escape(title)}</text>
<g transform="translate(${width - right - 250}, 24)">
<line class="training" x1="0" x2="24" y1="0" y2="0"/><text x="30" y="4">training</text>
<line class="validation" x1="104" x2="128" y1="0" y2="0"/><circle class="dot" cx="116" cy="0" r="3.5"/>
<text x="134" y="4">validation${last ? ` ${last.loss.toFixed(3)}` : ""}</text>
</g>
${labels.join("\n")}
${steps.join("\n")}
<text x="${(left + width - right) / 2}" y="${height - 12}" text-anchor="middle">step</text>
<text transform="translate(16, ${
    (top + height - bottom) / 2
  }) rotate(-90)" text-anchor="middle">loss (nats per token)</text>
<path class="raw" d="${path(curves.training)}"/>
<path class="training" d="${path(smooth(curves.training))}"/>
<path class="validation" d="${path(curves.validation)}"/>
${
    curves.validation.map(({ step, loss }) =>
      `<circle class="dot" cx="${x(step).toFixed(1)}" cy="${y(loss).toFixed(1)}" r="3.5"/>`
    ).join("\n")
  }
</svg>
`;
}

/** The curves as text: training in braille dots, validation as `o`. */
export function plotText(curves: Curves, columns = 80, rows = 18): string {
  const { lastStep, low, high } = frame(curves);
  const width = Math.max(20, columns - 10);
  const dots = new Uint8Array(width * rows);
  const bits = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]];
  const row = (loss: number, resolution: number) =>
    Math.min(rows * resolution - 1, Math.floor((high - loss) / (high - low) * rows * resolution));
  for (const { step, loss } of smooth(curves.training)) {
    const px = Math.min(2 * width - 1, Math.floor((step - 1) / Math.max(1, lastStep) * 2 * width));
    const py = Math.max(0, row(loss, 4));
    dots[(py >> 2) * width + (px >> 1)] |= bits[py & 3][px & 1];
  }
  const cells = Array.from(dots, (dot) => dot ? String.fromCharCode(0x2800 + dot) : " ");
  for (const { step, loss } of curves.validation) {
    cells[Math.max(0, row(loss, 1)) * width + Math.min(width - 1, Math.floor(step / lastStep * width))] = "o";
  }
  const ticks = new Map(niceTicks(low, high, rows / 3).map((loss) => [Math.max(0, row(loss, 1)), loss.toFixed(2)]));
  const lines = Array.from({ length: rows }, (_, r) => {
    const label = ticks.get(r);
    return `${(label ?? "").padStart(7)} ${label ? "┤" : "│"}${cells.slice(r * width, (r + 1) * width).join("")}`
      .trimEnd();
  });
  const end = `step ${lastStep}`;
  return [
    ...lines,
    `${" ".repeat(8)}└${"─".repeat(width)}`,
    `${" ".repeat(9)}0${end.padStart(width - 1)}`,
    `${" ".repeat(9)}⠤ training (smoothed)   o validation`,
  ].join("\n");
}
