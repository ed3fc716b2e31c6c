/** Opens every GPU in a Worker of its own without the help of manifests, and prints the names wanted and opened. */

import { adapterName, requestSelected } from "../../gpu/open.ts";
import { prepareEnvironment, type Selection, waysTo } from "../../gpu/select.ts";
import { listVulkanDevices } from "../../gpu/vulkan.ts";

if ("WorkerGlobalScope" in globalThis) {
  const scope = globalThis as unknown as {
    onmessage: (event: MessageEvent<Selection>) => void;
    postMessage(message: string): void;
  };
  scope.onmessage = async ({ data }) => {
    try {
      scope.postMessage(adapterName((await requestSelected(data)).info));
    } catch (error) {
      scope.postMessage((error as Error).message);
    }
  };
} else {
  const devices = listVulkanDevices() ?? [];
  const selections = devices.map((device) => ({ device, ways: waysTo(device, devices, undefined) }));
  const base = prepareEnvironment(selections);
  const pairs: [string, string][] = [];
  for (const selection of selections) {
    const worker = new Worker(import.meta.url, { type: "module" });
    const opened = await new Promise<string>((resolve) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.postMessage({ ...selection, base });
    });
    pairs.push([selection.device.name, opened]);
  }
  console.log(JSON.stringify(pairs));
  Deno.exit(0);
}
