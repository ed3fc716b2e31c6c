/**
 * Reports of refused connections, few enough to be read: whoever can reach a port can knock at it as often as it likes.
 * @module
 */

/** Reports of a minute; of more only their number is told. */
const most = 10;
const minute = 60_000;

/** Who comes and goes without a word only looked whether somebody listens, as watchers of services do. */
const onlyLooked = /ended the connection when 0 of \d+ bytes had come/;

/** A report that passes on the first few sentences of each minute, and how many it has left out. */
export function seldom(report: ((sentence: string) => void) | undefined): (sentence: string) => void {
  let began = -Infinity;
  let told = 0;
  return (sentence) => {
    if (onlyLooked.test(sentence)) return;
    const now = performance.now();
    if (now - began > minute) {
      if (told > most) report?.(`Refused ${told - most} connections more`);
      [began, told] = [now, 0];
    }
    if (++told <= most) report?.(sentence);
  };
}
