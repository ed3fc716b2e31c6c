/**
 * Which links of a group are much slower than the others.
 * @module
 */

import type { LinkMeasurement } from "./measure_links.ts";

/** Below this share of the usual bandwidth a link is slow. */
const bandwidthShare = 0.5;
/** Above so many times the usual latency, too. */
const latencyTimes = 3;
/** Bandwidths of a member's links that differ no more have one cause. */
const alikeTimes = 2;

/**
 * A sentence for each link that has less than half of the usual bandwidth or more than three times the usual latency.
 * Where all links of a member are slow and alike, it is that member's, in one sentence. A single link is never slow.
 *
 * Usual is the upper quartile, not the median: among three machines one bad cable makes two of three links slow.
 *
 * @param links as measured: all pairs
 * @param names of the members, by rank
 */
export function slowLinks(links: readonly LinkMeasurement[], names: readonly string[]): string[] {
  const bandwidth = ({ gigabytesPerSecond }: LinkMeasurement) => Math.min(...gigabytesPerSecond);
  const latency = ({ microseconds }: LinkMeasurement) => microseconds;
  const upperQuartile = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(0.75 * values.length)];
  const usualBandwidth = upperQuartile(links.map(bandwidth));
  const usualLatency = -upperQuartile(links.map((link) => -latency(link)));
  const slow = links.filter((link) =>
    bandwidth(link) < bandwidthShare * usualBandwidth || latency(link) > latencyTimes * usualLatency
  );

  /** Of several links, the best there is: no link of them does better than is said. */
  const describe = (some: readonly LinkMeasurement[]) => {
    const most = Math.max(...some.map(bandwidth));
    const least = Math.min(...some.map(latency));
    const parts: string[] = [];
    if (most < bandwidthShare * usualBandwidth) {
      const share = (100 * most / usualBandwidth).toPrecision(2);
      parts.push(`${most.toPrecision(3)} GB/s, ${share}% of the usual ${usualBandwidth.toPrecision(3)} GB/s`);
    }
    if (least > latencyTimes * usualLatency) {
      const times = (least / usualLatency).toFixed(1);
      parts.push(`latency ${least.toFixed(0)} µs, ${times} times the usual ${usualLatency.toFixed(0)} µs`);
    }
    return parts.join(", and ");
  };
  const of = (node: number) => slow.filter(({ between }) => between.includes(node));
  /** True if all its links are slow, and alike: then it is one fault, not several. */
  const isSlow = (node: number) => {
    const own = of(node);
    const speeds = own.map(bandwidth);
    const alike = Math.max(...speeds) <= alikeTimes * Math.min(...speeds) && describe(own) !== "";
    return names.length > 2 && own.length === names.length - 1 && alike;
  };
  const nodes = names.map((_, node) => node).filter(isSlow);
  return [
    ...nodes.map((node) => `all links of ${names[node]} are slow: at best ${describe(of(node))}`),
    ...slow.filter(({ between }) => !between.some((node) => nodes.includes(node)))
      .map((link) => `${names[link.between[0]]} – ${names[link.between[1]]} is slow: ${describe([link])}`),
  ];
}
