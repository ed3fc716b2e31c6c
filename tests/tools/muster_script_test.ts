import assert from "node:assert/strict";

const script = new URL("../../muster", import.meta.url).pathname;
const posix = Deno.build.os !== "windows";

/** A folder with the script and a `bin` of stub commands that write down how they were called. */
function withStubs(
  stubs: Record<string, string>,
  body: (run: (args: string[], env?: Record<string, string>) => Ran, folder: string) => void,
): void {
  const folder = Deno.makeTempDirSync();
  try {
    Deno.mkdirSync(`${folder}/bin`);
    Deno.copyFileSync(script, `${folder}/muster`);
    for (const [name, text] of Object.entries(stubs)) {
      Deno.writeTextFileSync(`${folder}/bin/${name}`, `#!/bin/sh\n${text}\n`);
      Deno.chmodSync(`${folder}/bin/${name}`, 0o755);
    }
    // The tools that the script stands on, and nothing else of this machine.
    for (const name of ["sh", "dirname", "awk", "sed", "tr", "mkdir", "mv", "rm", "chmod", "cat"]) {
      const real = ["/bin", "/usr/bin"].map((path) => `${path}/${name}`).find((path) => exists(path));
      if (real && !stubs[name]) Deno.symlinkSync(real, `${folder}/bin/${name}`);
    }
    body((args, env = {}) => {
      const { code, stdout, stderr } = new Deno.Command(`${folder}/bin/sh`, {
        args: [`${folder}/muster`, ...args],
        clearEnv: true,
        env: { PATH: `${folder}/bin`, HOME: folder, VK_DRIVER_FILES: "some.json", XDG_RUNTIME_DIR: folder, ...env },
      }).outputSync();
      return { code, stdout: new TextDecoder().decode(stdout), stderr: new TextDecoder().decode(stderr) };
    }, folder);
  } finally {
    Deno.removeSync(folder, { recursive: true });
  }
}

interface Ran {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

const deno = (version: string) =>
  `if [ "$1" = --version ]; then echo "deno ${version} (stable)"; else echo "ran $*"; fi`;
const linux = { uname: "echo Linux", id: "echo 1000" };
const npm = (made: string) =>
  `echo "npm $*" >&2
while [ $# -gt 0 ]; do if [ "$1" = --prefix ]; then prefix=$2; fi; shift; done
mkdir -p "$prefix/node_modules/@deno/linux"
cat > "$prefix/node_modules/@deno/linux/deno" <<'EOF'
#!/bin/sh
${made}
EOF`;

Deno.test({
  name: "muster runs commands and tasks with a Deno that is new enough",
  ignore: !posix,
  fn: () => {
    for (const version of ["2.9.6", "2.10.0", "3.0.0"]) {
      withStubs({ ...linux, deno: deno(version) }, (run, folder) => {
        const trained = run(["train", "--steps", "3"]);
        assert.equal(trained.code, 0, trained.stderr);
        assert.equal(
          trained.stdout,
          `ran run -A --quiet --config ${folder}/deno.json ${folder}/cli.ts train --steps 3\n`,
        );
        assert.equal(run(["test", "kernels"]).stdout, "ran task --quiet test kernels\n");
      });
    }
  },
});

Deno.test({
  name: "muster installs Deno under the checkout, from npm, when there is none or an old one, and only once",
  ignore: !posix,
  fn: () => {
    const olds: Record<string, string>[] = [{}, { deno: deno("2.9.5") }, { deno: deno("1.46.3") }];
    for (const old of olds) {
      withStubs({ ...linux, ...old, npm: npm(deno("2.9.6")) }, (run, folder) => {
        const first = run(["train"]);
        assert.equal(first.code, 0, first.stderr);
        assert.match(first.stderr, /installing Deno 2\.9\.6 under .*\.deno\nnpm install .*deno@2\.9\.6/);
        assert.match(first.stdout, /^ran run -A/);
        assert.ok(exists(`${folder}/.deno/node_modules/@deno/linux/deno`));
        assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), [".deno", "bin", "muster"]);
        assert.doesNotMatch(run(["train"]).stderr, /installing/);
      });
    }
  },
});

Deno.test({
  name: "muster installs Deno with Deno's own installer where there is no npm, and says when it cannot be fetched",
  ignore: !posix,
  fn: () => {
    const installer = `mkdir -p "$DENO_INSTALL/bin"; echo "installer $*"
printf '#!/bin/sh\\nif [ "$1" = --version ]; then echo deno 2.9.6; else echo "ran $*"; fi\\n' > "$DENO_INSTALL/bin/deno"
chmod +x "$DENO_INSTALL/bin/deno"`;
    withStubs({ ...linux, curl: `cat <<'EOF'\n${installer}\nEOF` }, (run) => {
      const { code, stdout, stderr } = run(["train"]);
      assert.equal(code, 0, stderr);
      assert.match(stderr, /installer -y v2\.9\.6/);
      assert.match(stdout, /^ran run -A/);
    });
    withStubs({ ...linux, curl: "echo 'could not resolve host' >&2; exit 6" }, (run) => {
      const { code, stderr } = run(["train"]);
      assert.equal(code, 1);
      assert.match(stderr, /could not resolve host\nmuster: Deno's installer could not be fetched/);
    });
  },
});

Deno.test({
  name: "muster says what is missing when it can install nothing",
  ignore: !posix,
  fn: () => {
    withStubs(linux, (run) => {
      const { code, stderr } = run(["train"]);
      assert.equal(code, 1);
      assert.match(stderr, /Deno 2\.9\.6 is needed, and neither npm nor curl is here/);
    });
    withStubs({ ...linux, npm: "echo 'E404' >&2; exit 1" }, (run, folder) => {
      const { code, stderr } = run(["train"]);
      assert.equal(code, 1);
      assert.match(stderr, /E404[\s\S]*npm could not install deno@2\.9\.6/);
      assert.deepEqual([...Deno.readDirSync(folder)].map(({ name }) => name).sort(), ["bin", "muster"]);
    });
    withStubs({ ...linux, npm: npm("echo 'cannot execute' >&2; exit 126") }, (run) => {
      const { code, stderr } = run(["train"]);
      assert.equal(code, 1);
      assert.match(stderr, /does not run on this system/);
    });
  },
});

Deno.test({
  name: "muster prints the command that installs a Vulkan driver when it may not run it",
  ignore: !posix,
  fn: () => {
    // A loader or driver of this machine would be found by path, so the search is turned to an empty place.
    const none = (stubs: Record<string, string>, body: (run: (args: string[]) => Ran) => void) =>
      withStubs({ ...linux, deno: deno("2.9.6"), ...stubs }, (run, folder) => {
        const text = Deno.readTextFileSync(`${folder}/muster`)
          .replaceAll(/\/(usr\/|lib|etc\/)\S*(libvulkan|icd\.d)/g, `${folder}/none/$2`);
        Deno.writeTextFileSync(`${folder}/muster`, text);
        body((args) => run(args, { VK_DRIVER_FILES: "" }));
      });
    const cases: [string, RegExp][] = [
      ["apt-get", /sudo apt-get install mesa-vulkan-drivers libvulkan1/],
      ["dnf", /sudo dnf install mesa-vulkan-drivers vulkan-loader/],
      ["pacman", /sudo pacman -S vulkan-icd-loader/],
      ["zypper", /sudo zypper install libvulkan1/],
      ["apk", /sudo apk add vulkan-loader/],
      ["true", /the Vulkan loader \(libvulkan\.so\.1\) and the Vulkan driver/],
    ];
    for (const [manager, expected] of cases) {
      none({ [manager]: "echo called" }, (run) => {
        const { code, stdout, stderr } = run(["train"]);
        assert.equal(code, 1, stderr);
        assert.match(stderr, expected);
        assert.equal(stdout, "");
        // What needs no GPU runs without one.
        for (const args of [["prepare", "x"], ["comm-bench"], ["doctor"], ["licenses"], ["completions", "bash"]]) {
          assert.match(run(args).stdout, /^ran run/);
        }
      });
    }
    none({ "apt-get": 'echo "apt $*" >&2', id: "echo 0" }, (run) => {
      const { code, stderr } = run(["train"]);
      assert.equal(code, 1);
      assert.match(stderr, /apt update -qq\napt install -y -qq mesa-vulkan-drivers libvulkan1/);
      assert.match(stderr, /the driver was installed, but no Vulkan driver is found/);
    });
  },
});
