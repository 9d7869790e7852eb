// The official conformance suite: a run of a part of it, the checks that it made, whether another run made the same, and
// a proxy with a token for it.
import assert from 'node:assert/strict';
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

/** What the suite notes of its own doing is no check. */
const TRANSCRIPT = [
  'outgoing-request', 'incoming-response', 'incoming-sse-event', 'stream-closed',
  'incoming-request', 'outgoing-response', 'outgoing-sse-event', 'outgoing-stream-close',
];
const GOOD = ['SUCCESS', 'INFO', 'SKIPPED'];

/**
 * The checks that the suite made, by scenario (without `prefix` and the time), id and name: the statuses of each, in
 * order, and what the poor ones said.
 */
export const findings = (name, prefix = '') => {
  const found = new Map();
  for (const {scenario, id, name: title, status, errorMessage, description} of checks(name)) {
    if (TRANSCRIPT.includes(id)) continue;
    const short = scenario.replace(/-20\d\d-\d\d-\d\dT\S+$/, '').replace(prefix, '');
    const key = `${short} / ${id} / ${title}`;
    if (!found.has(key)) found.set(key, {scenario: short, statuses: [], said: new Set()});
    found.get(key).statuses.push(status);
    if (!GOOD.includes(status)) found.get(key).said.add(errorMessage ?? description);
  }
  return found;
};

/** The checks that went badly, each with what was said. */
export const poor = (found) => [...found]
  .filter(([, {statuses}]) => !statuses.every((status) => GOOD.includes(status)))
  .map(([key, {said}]) => [key, ...said]);

export const count = (found) => {
  const statuses = [...found.values()].flatMap(({statuses}) => statuses);
  const passed = statuses.filter((status) => status === 'SUCCESS').length;
  const bad = statuses.filter((status) => !GOOD.includes(status)).length;
  return `${passed} passed, ${bad} failed, ${statuses.length - passed - bad} others`;
};

const same = (one, other) => JSON.stringify(one?.statuses) === JSON.stringify(other?.statuses);

/** Every check that is not the same, in words. */
const differences = (direct, through) => [...new Set([...direct.keys(), ...through.keys()])].sort()
  .filter((key) => !same(direct.get(key), through.get(key)))
  .map((key) => {
    const [one, other] = [direct.get(key), through.get(key)];
    const why = [...other?.said ?? []].map((text) => `\n      ${String(text).slice(0, 300)}`).join('');
    const said = (found) => found?.statuses.join(' ') ?? 'not made';
    return {key, scenario: (one ?? other).scenario, text: `${key}: directly ${said(one)}, through the tunnel ${said(other)}${why}`};
  });

/**
 * Tells all differences under `title`. Only those with a reason in `exceptions` are allowed, whose names are a check's
 * or a scenario's, and there is no reason without a difference; `lenient` allows everything.
 */
export const compare = (title, direct, through, exceptions, {lenient = false} = {}) => {
  const names = Object.keys(exceptions);
  const named = (name, key) => key === name || key.startsWith(`${name} / `);
  const found = differences(direct, through).map((one) => ({...one, name: names.find((name) => named(name, one.key))}));
  const strange = found.filter(({name}) => !name);
  const scenarios = new Set(found.map(({scenario}) => scenario));
  console.log(`# ${title}: ${count(through)}; directly: ${count(direct)}; ${found.length} of ${direct.size} checks differ in ${scenarios.size} scenarios, ${found.length - strange.length} with a reason`);
  for (const {text, name} of found) console.log(`#   ${text}${name ? `\n      (${exceptions[name]})` : ''}`);
  if (lenient) return;
  assert.deepEqual(strange.map(({text}) => text), [], 'differences');
  const made = [...direct.keys(), ...through.keys()];
  const idle = names.filter((name) => made.some((key) => named(name, key)) && !found.some((one) => one.name === name));
  assert.deepEqual(idle, [], 'exceptions that are none');
};

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
