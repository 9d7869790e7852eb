#!/usr/bin/env node
// Runs the program that the platform's package carries, as if it had been started itself: the same stdin, stdout and
// stderr (not pipes to this process, so that an end of stdin is seen at once even if this process is killed), the same
// signals, the same exit code.
"use strict";

const { spawn } = require("node:child_process");
const { isatty } = require("node:tty");

const platform = `${process.platform}-${process.arch}`;
const program = process.platform === "win32" ? "mcp-local-tunnel.exe" : "mcp-local-tunnel";

function find() {
  // For those who build the program themselves.
  const own = process.env.MCP_LOCAL_TUNNEL_BINARY;
  if (own) return own;
  try {
    return require.resolve(`@mcp-local-tunnel/${platform}/bin/${program}`);
  } catch {
    fail(
      `there is no program for ${platform} beside this package.\n` +
        "  If npm was told to leave optional dependencies out, install again without --omit=optional.\n" +
        "  Else build it (cargo install --path .) and name it in MCP_LOCAL_TUNNEL_BINARY.",
    );
  }
}

function fail(reason) {
  process.stderr.write(`mcp-local-tunnel: ${reason}\n`);
  process.exit(1);
}

const child = spawn(find(), process.argv.slice(2), { stdio: "inherit", windowsHide: true });
child.on("error", (error) => fail(`cannot start the program: ${error.message}`));

// What ends this process ends the program, which knows best how. What a terminal sends, it sends to both. SIGKILL cannot
// be passed on, but whoever sends it closes the program's stdin with it.
const terminal = [0, 1, 2].some((descriptor) => isatty(descriptor));
for (const signal of ["SIGINT", "SIGQUIT", "SIGHUP", "SIGTERM", "SIGUSR1", "SIGUSR2"]) {
  const sentToBoth = terminal && ["SIGINT", "SIGQUIT", "SIGHUP"].includes(signal);
  try {
    process.on(signal, () => sentToBoth || child.kill(signal));
  } catch {
    // Not every system knows each.
  }
}

child.on("exit", (code, signal) => {
  if (signal === null) process.exit(code);
  // Ended by a signal, as this process then is.
  process.removeAllListeners(signal);
  process.kill(process.pid, signal);
  setTimeout(() => process.exit(1), 1000);
});
