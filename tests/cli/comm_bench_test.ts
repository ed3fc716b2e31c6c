import assert from "node:assert/strict";

const entry = new URL("../../cli.ts", import.meta.url).pathname;
const secret = "a secret of sixteen bytes and more";
const quick = ["--sizes", "4KiB,1MiB"];

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts `muster comm-bench`, in an environment without a secret unless one is given. */
function start(args: string[], env: Record<string, string> = {}): Deno.ChildProcess {
  const { MUSTER_SECRET: _, ...inherited } = Deno.env.toObject();
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--quiet", entry, "comm-bench", ...args],
    env: { ...inherited, NO_COLOR: "1", ...env },
    clearEnv: true,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function bench(args: string[], env: Record<string, string> = {}): Promise<Ended> {
  const { code, stdout, stderr } = await start(args, env).output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

function rendezvous(): string {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return `127.0.0.1:${listener.addr.port}`;
}

Deno.test("muster comm-bench starts processes of its own and prints their link and all-reduces", async () => {
  const { code, stdout, stderr } = await bench(quick);
  assert.equal(code, 0, stderr);
  assert.match(stdout, /^node 0 \(.*, 127\.0\.0\.1:\d+\)\nnode 1 \(.*, 127\.0\.0\.1:\d+\)\n\nlink +latency µs/);
  assert.match(stdout, /\n0 - 1( +[\d.]+){5}\n\nall-reduce .*\n4 KiB( +[\d.]+){3}\n1 MiB( +[\d.]+){3}\n$/);
  assert.match(stderr, /link 1 of 1: node 0 – node 1\nall-reduce 1 of 2: 4096 bytes by 2 nodes\n/);
});

Deno.test("muster comm-bench --local 3 --json prints one object with all pairs and sizes", async () => {
  const { code, stdout, stderr } = await bench(["--local", "3", "--json", ...quick]);
  assert.equal(code, 0, stderr);
  const { nodes, links, allReduces, warnings } = JSON.parse(stdout);
  assert.equal(nodes.length, 3);
  assert.ok(Array.isArray(warnings));
  assert.deepEqual(links.map(({ between }: { between: number[] }) => between), [[0, 1], [0, 2], [1, 2]]);
  for (const { microseconds, gigabytesPerSecond } of links) {
    assert.ok(microseconds > 1 && microseconds < 1e5);
    assert.equal(gigabytesPerSecond.length, 2);
    assert.ok(Math.min(...gigabytesPerSecond) > 0.01);
  }
  assert.deepEqual(allReduces.map(({ bytes }: { bytes: number }) => bytes), [4096, 2 ** 20]);
});

Deno.test("muster comm-bench --comm-tune measures the ways and says which it takes for which size", async () => {
  const { code, stdout, stderr } = await bench(["--local", "2", "--comm-tune", "--json", "--sizes", "4KiB"]);
  assert.equal(code, 0, stderr);
  const { choice: { bounds, times }, allReduces } = JSON.parse(stdout);
  assert.equal(allReduces.length, 1);
  assert.equal(times[0].bytes, 4096);
  assert.deepEqual(Object.keys(times[0].microseconds), ["doubling", "halving", "ring"]);
  assert.ok(bounds.halvingBytes >= bounds.doublingBytes && bounds.doublingBytes >= 0);
  assert.match(stderr, /\nways to all-reduce\n/);
});

Deno.test("three processes of muster comm-bench meet with a secret, and rank 0 prints the tables", async () => {
  const file = Deno.makeTempFileSync();
  try {
    Deno.writeTextFileSync(file, `${secret}\n`);
    Deno.chmodSync(file, 0o600);
    const common = ["--nodes", "3", "--rendezvous", rendezvous(), ...quick];
    const ended = await Promise.all([
      bench([...common, "--node-rank", "2", "--secret-file", file]),
      bench([...common, "--node-rank", "1"], { MUSTER_SECRET: secret }),
      bench([...common, "--node-rank", "0", "--json"], { MUSTER_SECRET: secret }),
    ]);
    for (const { code, stderr } of ended) assert.equal(code, 0, stderr);
    assert.equal(ended[0].stdout, "node 2 of 3 has measured; node 0 prints the tables\n");
    assert.equal(ended[1].stdout, "node 1 of 3 has measured; node 0 prints the tables\n");
    assert.equal(JSON.parse(ended[2].stdout).links.length, 3);
    assert.doesNotMatch(ended[0].stderr, /link 1 of/);
  } finally {
    Deno.removeSync(file);
  }
});

Deno.test("muster comm-bench refuses another secret, and names the ranks that did not come", async () => {
  const common = ["--nodes", "3", "--rendezvous", rendezvous()];
  const [host, member, stranger] = await Promise.all([
    bench([...common, "--node-rank", "0", "--timeout", "3"], { MUSTER_SECRET: secret }),
    // It has more patience than the host, so it hears from the host what is wrong.
    bench([...common, "--node-rank", "2"], { MUSTER_SECRET: secret }),
    bench([...common, "--node-rank", "1"], { MUSTER_SECRET: "a secret of somebody else" }),
  ]);
  assert.equal(stranger.code, 2);
  assert.match(stranger.stderr, /^muster: the rendezvous \(127\.0\.0\.1:\d+\) has another shared secret.*\n$/);
  assert.equal(host.code, 1);
  assert.match(host.stderr, /Refused a connection: .* another shared secret/);
  assert.match(host.stderr, /muster: 1 of 3 machines did not come to 127\.0\.0\.1:\d+ within 3 s: rank 1; there are /);
  assert.equal(member.code, 1);
  assert.match(member.stderr, /muster: 1 of 3 machines did not come to .*: rank 1; there are /);
});

Deno.test("muster comm-bench ends with the name of a machine that is lost while it measures", async () => {
  const sizes = Array.from({ length: 40 }, () => "16MiB").join(",");
  const common = ["--nodes", "2", "--rendezvous", rendezvous(), "--sizes", sizes, "--json"];
  const host = start([...common, "--node-rank", "0"]);
  const lost = start([...common, "--node-rank", "1"]);
  let told = "";
  for await (const text of host.stderr.pipeThrough(new TextDecoderStream())) {
    if (!told.includes("all-reduce 1 of") && text.includes("all-reduce 1 of")) lost.kill("SIGKILL");
    told += text;
  }
  assert.equal((await lost.output()).signal, "SIGKILL");
  assert.equal((await host.status).code, 1);
  assert.match(told, /\nmuster: Lost node 1 \(.*\n$/);
  const { event, exitCode } = JSON.parse(await new Response(host.stdout).text());
  assert.deepEqual([event, exitCode], ["error", 1]);
});

Deno.test("muster comm-bench tells of wrong flags, an unreachable rendezvous and machines that disagree in a sentence", async () => {
  const at = rendezvous();
  const twice = ["--nodes", "3", "--rendezvous", rendezvous(), "--node-rank", "1", "--timeout", "20"];
  const differing = ["--nodes", "2", "--rendezvous", rendezvous(), "--timeout", "20"];
  const cases: [string[], number, RegExp][] = [
    [["--algorithm", "tree"], 2, /^muster: An all-reduce goes by auto, doubling, halving, ring, not by "tree"\n$/],
    [["--algorithm", "ring", "--comm-tune"], 2, /^muster: --comm-tune chooses by size: leave it or --algorithm out\n$/],
    [["--nodes", "3"], 2, /--nodes 3 needs --rendezvous host:port/],
    [["--rendezvous", at], 2, /--rendezvous is for several machines: say how many with --nodes/],
    [["--nodes", "3", "--rendezvous", at, "--local", "2"], 2, /--local is for one machine/],
    [["--nodes", "3", "--rendezvous", at, "--node-rank", "3"], 2, /Rank 3 is not one of a group of 3/],
    [["--sizes", "4KiB,lots"], 2, /--sizes is "lots", but must be a size with its unit/],
    [["--sizes", "6B"], 2, /--sizes has 6B, but f32 are summed/],
    [
      ["--nodes", "2", "--rendezvous", "10.1.2.3:29500", "--node-rank", "1"],
      2,
      /Without a shared secret only loopback/,
    ],
    [["--nodes", "2", "--rendezvous", at, "--listen", "0.0.0.0", "--node-rank", "0"], 2, /Without a shared secret/],
    [
      ["--nodes", "2", "--rendezvous", at, "--node-rank", "1", "--timeout", "1"],
      1,
      /the rendezvous .* could not be rea/,
    ],
    [["--secret-file", "/nowhere/secret"], 2, /The secret file \/nowhere\/secret cannot be read/],
    [twice, 2, /both have rank 1/],
    [twice, 2, /both have rank 1/],
    [[...twice.slice(0, 5), "0", ...twice.slice(6)], 2, /both have rank 1/],
    [[...differing, "--sizes", "4KiB"], 2, /sizes is "\d KiB" at .* and "\d KiB" at/],
    [[...differing, "--sizes", "8KiB"], 2, /sizes is "\d KiB" at .* and "\d KiB" at/],
  ];
  const ended = await Promise.all(cases.map(([args]) => bench(args)));
  for (const [i, { code, stdout, stderr }] of ended.entries()) {
    const [args, expected, message] = cases[i];
    assert.equal(code, expected, `${args.join(" ")}: ${stderr}`);
    assert.match(stderr, message);
    assert.equal(stderr.trim().split("\n").length, 1, stderr);
    assert.equal(stdout, "");
  }
});

Deno.test("muster comm-bench passes certificates on to its own processes, and refuses an incomplete set", async () => {
  const folder = new URL("../network/certificates/", import.meta.url).pathname;
  const key = Deno.makeTempFileSync();
  try {
    // Git keeps no modes of files: the copy is for its owner alone.
    Deno.writeTextFileSync(key, Deno.readTextFileSync(`${folder}alpha.key`));
    Deno.chmodSync(key, 0o600);
    const tls = ["--tls-cert", `${folder}alpha.pem`, "--tls-key", key, "--tls-ca", `${folder}authority.pem`];
    const { code, stdout, stderr } = await bench(["--json", "--sizes", "4KiB", ...tls]);
    assert.equal(code, 0, stderr);
    assert.equal(JSON.parse(stdout).links.length, 1);
    const half = await bench(tls.slice(0, 4));
    assert.equal(half.code, 2);
    assert.match(half.stderr, /--tls-cert, --tls-key and --tls-ca go together: give all three or none/);
  } finally {
    Deno.removeSync(key);
  }
});
