/** Opens every GPU in a Worker of its own without the help of manifests, and prints the names wanted and opened. */

import { adapterName, requestSelected } from "../../gpu/open.ts";
import { preparedEnvironment, prepareEnvironment, type Selection, waysTo } from "../../gpu/select.ts";
import { listVulkanDevices } from "../../gpu/vulkan.ts";

interface Question {
  readonly selection: Selection;
  readonly environment: Readonly<Record<string, string>>;
}

if ("WorkerGlobalScope" in globalThis) {
  const scope = globalThis as unknown as {
    onmessage: (event: MessageEvent<Question>) => void;
    postMessage(message: string): void;
  };
  scope.onmessage = async ({ data: { selection, environment } }) => {
    try {
      scope.postMessage(adapterName((await requestSelected(selection, environment)).info));
    } catch (error) {
      scope.postMessage((error as Error).message);
    }
  };
} else {
  const devices = listVulkanDevices() ?? [];
  const selections = devices.map((device) => ({ device, ways: waysTo(device, devices, undefined) }));
  prepareEnvironment(selections);
  const pairs: [string, string][] = [];
  for (const selection of selections) {
    const worker = new Worker(import.meta.url, { type: "module" });
    const opened = await new Promise<string>((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.postMessage({ selection, environment: preparedEnvironment() });
    });
    pairs.push([selection.device.name, opened]);
  }
  console.log(JSON.stringify(pairs));
  Deno.exit(0);
}
