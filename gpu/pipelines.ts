/**
 * The compiled kernels of a device.
 * @module
 */

import { MachineError } from "../errors.ts";
import { layoutEntries } from "./bindings.ts";

/** WGSL to compile, with names for messages. */
export interface ShaderSource {
  /** File that the text comes from. */
  readonly file: string;
  /** Constants filled in. */
  readonly variant: string;
  /** WGSL with entry point `main`. */
  readonly code: string;
}

/** What a device offers to those who compile for it. */
export interface PipelineDevice {
  readonly gpu: GPUDevice;
  readonly capabilities: { readonly name: string };
  /** Counts what is made. */
  objectsCreated: number;
  /** A zeroed buffer. */
  createBuffer(size: number, usage?: number): GPUBuffer;
  /** A texture of vectors of four f32 or halves. */
  createImage(width: number, height: number, halves: boolean): GPUTexture;
  /** Waits until all submitted work is done. */
  drain(): void;
}

/** What a pipeline was made of. */
interface Made {
  readonly module: GPUShaderModule;
  readonly bindings: string;
  readonly twin?: GPUComputePipeline;
}

/** Pipelines of one device, by their kernels' texts, and the layouts of their bindings. */
export class Pipelines {
  readonly #device: PipelineDevice;
  readonly #pipelines = new Map<string, GPUComputePipeline>();
  readonly #made = new Map<GPUComputePipeline, Made>();
  readonly #bindLayouts = new Map<string, GPUBindGroupLayout>();
  readonly #pipelineLayouts = new Map<string, GPUPipelineLayout>();
  readonly #scratchGroups = new Map<string, GPUBindGroup>();

  /** @param device compiles them */
  constructor(device: PipelineDevice) {
    this.#device = device;
  }

  /** See `Device.bindGroupLayout`. */
  layout(bindings: string): GPUBindGroupLayout {
    const { gpu } = this.#device;
    let layout = this.#bindLayouts.get(bindings);
    if (!layout) {
      layout = gpu.createBindGroupLayout({ entries: layoutEntries(bindings) });
      this.#bindLayouts.set(bindings, layout);
      this.#pipelineLayouts.set(bindings, gpu.createPipelineLayout({ bindGroupLayouts: [layout] }));
    }
    return layout;
  }

  /** See `Device.pipeline`. */
  async get(source: ShaderSource, bindings: string): Promise<GPUComputePipeline> {
    const key = `${bindings}:${source.code}`;
    const known = this.#pipelines.get(key);
    if (known) return known;
    const { gpu, capabilities } = this.#device;
    this.layout(bindings);
    gpu.pushErrorScope("validation");
    const module = gpu.createShaderModule({ code: source.code });
    const pipeline = this.#create(module, bindings);
    const error = await gpu.popErrorScope();
    if (error) {
      const [first] = (await module.getCompilationInfo()).messages;
      const place = first ? `:${first.lineNum}:${first.linePos}` : "";
      const variant = source.variant ? ` (${source.variant})` : "";
      throw new MachineError(
        `Cannot compile ${source.file}${place}${variant} on ${capabilities.name}: ${first?.message ?? error.message}`,
      );
    }
    this.#warm(pipeline, bindings);
    this.#pipelines.set(key, pipeline);
    this.#made.set(pipeline, { module, bindings });
    return pipeline;
  }

  /** See `Device.twin`. */
  twin(pipeline: GPUComputePipeline): GPUComputePipeline {
    const { module, bindings, twin } = this.#made.get(pipeline)!;
    if (twin) return twin;
    const made = this.#create(module, bindings);
    this.#warm(made, bindings);
    this.#made.set(pipeline, { module, bindings, twin: made });
    this.#made.set(made, { module, bindings, twin: pipeline });
    return made;
  }

  #create(module: GPUShaderModule, bindings: string): GPUComputePipeline {
    this.#device.objectsCreated++;
    return this.#device.gpu.createComputePipeline({
      layout: this.#pipelineLayouts.get(bindings)!,
      compute: { module, entryPoint: "main" },
    });
  }

  /**
   * Software drivers compile at a pipeline's first dispatch: one of no workgroup has it compiled and computes nothing
   * (Mesa 22.3: 2 s there, 0.5 ms in the dispatch behind it).
   */
  #warm(pipeline: GPUComputePipeline, bindings: string): void {
    const encoder = this.#device.gpu.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, this.#scratchGroup(bindings));
    pass.dispatchWorkgroups(0);
    pass.end();
    this.#device.gpu.queue.submit([encoder.finish()]);
    this.#device.drain();
  }

  /** What a dispatch of no workgroup is bound to. */
  #scratchGroup(bindings: string): GPUBindGroup {
    let group = this.#scratchGroups.get(bindings);
    if (!group) {
      const bytes = 256;
      const uniform = this.#device.createBuffer(bytes, GPUBufferUsage.UNIFORM);
      const buffer = this.#device.createBuffer(bytes * Math.max(1, bindings.length));
      const entries = ["u", ...bindings].map((kind, binding): GPUBindGroupEntry => ({
        binding,
        resource: kind === "u"
          ? { buffer: uniform }
          : kind === "b"
          ? { buffer, offset: bytes * (binding - 1), size: bytes }
          : this.#device.createImage(1, 1, kind === "h").createView(),
      }));
      group = this.#device.gpu.createBindGroup({ layout: this.layout(bindings), entries });
      this.#scratchGroups.set(bindings, group);
    }
    return group;
  }
}
