#!/usr/bin/env node
// Assembles the npm packages from built programs, and packs them:
//
//   node packaging/npm/assemble.mjs OUT VERSION linux-x64=target/x86_64-unknown-linux-musl/dist/mcp-local-tunnel …
//
// OUT then has mcp-local-tunnel-VERSION.tgz and one mcp-local-tunnel-PLATFORM-VERSION.tgz for each program. The main
// package names exactly these as its optional dependencies: npm installs the one that fits.

import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const PLATFORMS = ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64", "win32-x64"];

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "../..");
const [out, version, ...programs] = process.argv.slice(2);
if (!out || !/^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/.test(version ?? "") || programs.length === 0) {
  fail("usage: assemble.mjs OUT VERSION PLATFORM=PROGRAM…");
}

mkdirSync(out, { recursive: true });
const scratch = mkdtempSync(join(tmpdir(), "mcp-local-tunnel-npm-"));
try {
  const packed = programs.map((given) => {
    const [platform, program] = given.split(/=(.*)/s);
    if (!PLATFORMS.includes(platform) || !program) fail(`"${given}" is not one of ${PLATFORMS.join(", ")} =PROGRAM`);
    pack(platformPackage(platform, program));
    return platform;
  });
  pack(mainPackage(packed));
} finally {
  rmSync(scratch, { recursive: true, force: true });
}

function platformPackage(platform, program) {
  const [os, cpu] = platform.split("-");
  const dir = join(scratch, platform);
  const name = os === "win32" ? "mcp-local-tunnel.exe" : "mcp-local-tunnel";
  mkdirSync(join(dir, "bin"), { recursive: true });
  copyFileSync(program, join(dir, "bin", name));
  chmodSync(join(dir, "bin", name), 0o755);
  copyFileSync(join(root, "LICENSE"), join(dir, "LICENSE"));
  write(dir, {
    name: `@mcp-local-tunnel/${platform}`,
    version,
    description: `The program of mcp-local-tunnel for ${platform}`,
    license: "MIT",
    os: [os],
    cpu: [cpu],
    files: ["bin", "LICENSE"],
    // Yarn leaves packages zipped otherwise, and a zipped program cannot be run.
    preferUnplugged: true,
  });
  return dir;
}

function mainPackage(platforms) {
  const dir = join(scratch, "main");
  cpSync(join(here, "mcp-local-tunnel"), dir, { recursive: true });
  chmodSync(join(dir, "bin/mcp-local-tunnel.js"), 0o755);
  for (const file of ["README.md", "LICENSE"]) copyFileSync(join(root, file), join(dir, file));
  const manifest = JSON.parse(readFileSync(join(dir, "package.json"), "utf8"));
  const carried = platforms.map((platform) => [`@mcp-local-tunnel/${platform}`, version]);
  write(dir, { ...manifest, version, optionalDependencies: Object.fromEntries(carried) });
  return dir;
}

function write(dir, manifest) {
  writeFileSync(join(dir, "package.json"), JSON.stringify(manifest, null, 2) + "\n");
}

function pack(dir) {
  const npm = process.platform === "win32" ? "npm.cmd" : "npm";
  const args = ["pack", "--silent", "--ignore-scripts", "--pack-destination", resolve(out)];
  const ran = spawnSync(npm, args, { cwd: dir, stdio: ["ignore", "inherit", "inherit"] });
  if (ran.status !== 0) fail(`npm pack failed for ${dir}`);
}

function fail(reason) {
  process.stderr.write(`assemble: ${reason}\n`);
  process.exit(1);
}
