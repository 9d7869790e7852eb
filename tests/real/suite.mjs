// The official conformance suite: a run of a part of it, the checks that it made, and a proxy with a token for it.
import {readFileSync, readdirSync} from 'node:fs';
import http from 'node:http';
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {Process} from './processes.mjs';
import {home} from './relay.mjs';
import {scratch} from './steps.mjs';

const here = dirname(fileURLToPath(import.meta.url));
export const SUITE = join(here, 'node_modules', '@modelcontextprotocol', 'conformance', 'dist', 'index.js');

/** Begins a part of the suite with a Node of version 22; its results go to a directory of that name. */
export const conformance = (node22, name, args, env = {}) =>
  new Process(name, node22, [SUITE, ...args, '--output-dir', join(scratch, name)], {cwd: scratch, env: home('conformance', env), stdio: ['ignore', 'pipe', 'pipe']});

/** Every check that the suite made, by the scenario's directory. */
export const checks = (name) => readdirSync(join(scratch, name), {recursive: true})
  .filter((path) => path.endsWith('checks.json'))
  .flatMap((path) => JSON.parse(readFileSync(join(scratch, name, path), 'utf8')).map((check) => ({scenario: dirname(path), ...check})));

/** A proxy that adds `token` to what it passes on, for a suite that has none to send. Host and Origin stay theirs. */
export const startProxy = async (port, token) => {
  const proxy = http.createServer((request, response) => {
    const headers = {...request.headers, authorization: `Bearer ${token}`};
    const onward = http.request({host: '127.0.0.1', port, method: request.method, path: request.url, headers}, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      // A head without a body yet is an answer too: it says that a stream is open.
      response.flushHeaders();
      answer.pipe(response);
    });
    // Whoever leaves on one side has left on the other.
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  });
  await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return proxy.address().port;
};
