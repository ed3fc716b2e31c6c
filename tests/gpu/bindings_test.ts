/** Textures that kernels read: their extents. */

import assert from "node:assert/strict";
import { imageSize, maximumImageExtent } from "../../gpu/bindings.ts";

Deno.test("no extent of a texture is a power of two, but the largest that there can be", () => {
  for (const halves of [false, true]) {
    for (let extent = 1; extent <= 2048; extent++) {
      const [width, height] = imageSize(extent, extent, halves);
      assert.ok(width >= extent + 4 && width <= extent + 9 && height >= extent && height <= extent + 2);
      for (const length of [width, height]) assert.notEqual(length & (length - 1), 0, `${extent}: ${length}`);
    }
  }
  assert.equal(imageSize(1, maximumImageExtent, false)[1], maximumImageExtent);
});
