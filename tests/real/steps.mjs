// What every test with real parts needs: numbered steps with their time, waiting, ports, a directory, an orderly end.
import {mkdtempSync, realpathSync, rmSync} from 'node:fs';
import net from 'node:net';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import {endAll} from './processes.mjs';

/** A directory of this run's own, removed at its end. */
export const scratch = realpathSync(mkdtempSync(join(tmpdir(), 'mcp-local-tunnel-')));

let passed = 0;

/** Does one thing and says that it went well, and how long it took. */
export const step = async (name, run) => {
  const start = performance.now();
  try {
    const result = await run();
    passed += 1;
    console.log(`ok ${passed} - ${name} (${Math.round(performance.now() - start)} ms)`);
    return result;
  } catch (error) {
    console.log(`not ok - ${name}`);
    throw error;
  }
};

/** The first true value of `test`, asked again and again for so many seconds. */
export const until = async (what, seconds, test) => {
  for (const end = Date.now() + seconds * 1000; ;) {
    const value = await test().catch((error) => { if (Date.now() > end) throw error; });
    if (value) return value;
    if (Date.now() > end) throw new Error(`${what}: not within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
};

let tried = process.pid * 64;

/** Whether nobody listens there. */
const isFree = (port) => new Promise((resolve) => {
  const server = net.createServer().once('error', () => resolve(false));
  server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
});

/**
 * A port that nobody listens on, below those that the system gives to whoever connects (from 32768 on): one of these could
 * have it before it is used.
 */
export const freePort = async () => {
  const port = 20_000 + tried++ % 12_000;
  return await isFree(port) ? port : freePort();
};

/** Runs the whole, says how it ended, and leaves nothing behind. */
export const run = async (main) => {
  try {
    await main();
    console.log(`${passed} passed, 0 failed`);
  } catch (error) {
    console.error(error);
    console.log(`${passed} passed, 1 failed`);
    process.exitCode = 1;
  } finally {
    await endAll();
    rmSync(scratch, {recursive: true, force: true});
    // Servers within this process may have connections that nobody closes.
    process.exit();
  }
};
