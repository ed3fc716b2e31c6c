/** `deno run -A tools/flags.ts`: writes docs/flags.md from the table of settings. */

import { describeOptions } from "../train/settings.ts";

/** The page. */
export function flagsPage(): string {
  const rows = describeOptions().map(({ flag, help, fallback }) =>
    `| \`${flag.replaceAll("|", "\\|")}\` | ${help.replaceAll("|", "\\|")} | ${fallback} |`
  );
  return `# Flags of muster train

The same names are keys of a file given by \`--config file.toml\` or \`file.json\`; flags go before them.

| flag | meaning | default |
| --- | --- | --- |
${rows.join("\n")}
`;
}

if (import.meta.main) {
  Deno.writeTextFileSync(new URL("../docs/flags.md", import.meta.url), flagsPage());
}
