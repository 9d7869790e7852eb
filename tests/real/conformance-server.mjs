// The official conformance suite for servers: what it finds when the reference is asked directly, it must find through
// relay and agent too, check for check, whether the server behind the agent is on stdio or on HTTP.
// Usage: node conformance-server.mjs PROGRAM NODE22 [--report] [--bridged]
// With --report differences are told and nothing fails. With --bridged servers that know the other era alone are asked
// too, and what they lack is told. TUNNEL_REFERENCE names another build of the reference.
import assert from 'node:assert/strict';
import {resolve} from 'node:path';
import {reference, startReference, startTunnel} from './reference.mjs';
import {run, step} from './steps.mjs';
import {checks, conformance, startProxy} from './suite.mjs';

const [REPORT, BRIDGED] = ['--report', '--bridged'].map((option) => process.argv.includes(option));
const [PROGRAM, NODE22] = process.argv.slice(2).filter((argument) => !argument.startsWith('--')).map((path) => resolve(path));
/** Each with the era that it is not of. */
const REVISIONS = {'2025-11-25': 'modern', '2026-07-28': 'legacy'};

/** Scenarios that cannot be the same, by the way to the server, each with the reason. One that is the same after all fails. */
const EXCEPTIONS = {
  http: {},
  stdio: {
    'server-sse-polling': 'the server breaks its own HTTP stream off in mid-call and has it resumed; on stdio it has none',
  },
};

/** What the suite notes of its own doing is no check. */
const TRANSCRIPT = ['outgoing-request', 'incoming-response', 'incoming-sse-event', 'stream-closed'];
const GOOD = ['SUCCESS', 'INFO', 'SKIPPED'];

/** Runs the requirements of `revision` against `url`: the statuses of each check, in order, and what the poor ones said. */
const ask = async (name, url, revision) => {
  const suite = conformance(NODE22, name, ['server', '--url', url, '--requirements', revision]);
  await suite.exited;
  const found = new Map();
  for (const {scenario, id, status, errorMessage} of checks(name)) {
    if (TRANSCRIPT.includes(id)) continue;
    const [, short] = scenario.match(/^server-(.*)-20\d\d-\d\d-\d\dT\S+$/);
    const key = `${short} / ${id}`;
    if (!found.has(key)) found.set(key, {scenario: short, statuses: [], said: new Set()});
    found.get(key).statuses.push(status);
    if (!GOOD.includes(status)) found.get(key).said.add(errorMessage);
  }
  assert.ok(found.size > 50, `the suite made ${found.size} checks\n${suite.tail()}`);
  return found;
};

const count = (found) => {
  const statuses = [...found.values()].flatMap(({statuses}) => statuses);
  const passed = statuses.filter((status) => status === 'SUCCESS').length;
  const poor = statuses.filter((status) => !GOOD.includes(status)).length;
  return `${passed} passed, ${poor} failed, ${statuses.length - passed - poor} others`;
};

const same = (one, other) => JSON.stringify(one?.statuses) === JSON.stringify(other?.statuses);

/** Every check that is not the same, in words. */
const differences = (direct, through) => [...new Set([...direct.keys(), ...through.keys()])].sort()
  .filter((key) => !same(direct.get(key), through.get(key)))
  .map((key) => {
    const [one, other] = [direct.get(key), through.get(key)];
    const why = [...other?.said ?? []].map((text) => `\n      ${String(text).slice(0, 300)}`).join('');
    const said = (found) => found?.statuses.join(' ') ?? 'not made';
    return {scenario: (one ?? other).scenario, text: `${key}: directly ${said(one)}, through the tunnel ${said(other)}${why}`};
  });

/** Tells all differences; without --report only those with a reason are allowed, and no reason without one. */
const compare = (way, revision, direct, through) => {
  const found = differences(direct, through);
  const excepted = EXCEPTIONS[way] ?? {};
  const strange = found.filter(({scenario}) => !(scenario in excepted));
  const scenarios = new Set(found.map(({scenario}) => scenario));
  console.log(`# ${revision} over ${way}: ${count(through)}; directly: ${count(direct)}; ${found.length} of ${direct.size} checks differ in ${scenarios.size} scenarios, ${found.length - strange.length} with a reason`);
  for (const {scenario, text} of found) console.log(`#   ${text}${scenario in excepted ? `\n      (${excepted[scenario]})` : ''}`);
  if (REPORT || !(way in EXCEPTIONS)) return;
  assert.deepEqual(strange.map(({text}) => text), [], 'differences');
  const made = new Set([...direct.values()].map(({scenario}) => scenario));
  const idle = Object.keys(excepted).filter((scenario) => made.has(scenario) && !scenarios.has(scenario));
  assert.deepEqual(idle, [], 'exceptions that are none');
};

await run(async () => {
  const {url} = await startReference();
  const direct = {};
  for (const revision of Object.keys(REVISIONS)) {
    direct[revision] = await step(`directly: the reference passes all of ${revision}`, async () => {
      const found = await ask(`direct-${revision}`, url, revision);
      const poor = [...found].filter(([, {statuses}]) => !statuses.every((status) => GOOD.includes(status)));
      assert.deepEqual(poor.map(([key, {said}]) => [key, ...said]), []);
      console.log(`# ${revision} directly: ${count(found)}`);
      return found;
    });
  }
  const servers = {stdio: {command: [reference()]}, http: {url}};
  for (const era of BRIDGED ? Object.values(REVISIONS) : []) {
    servers[`stdio-${era}`] = {command: [reference(), '--era', era]};
    servers[`http-${era}`] = {url: (await startReference('--era', era)).url};
  }
  const tunnel = await step('a relay, an agent and the reference behind it', () => startTunnel(PROGRAM, servers, {lenient: REPORT}));
  const proxy = await startProxy(tunnel.relay.port, tunnel.token);
  for (const way of Object.keys(servers)) {
    for (const revision of Object.keys(REVISIONS).filter((revision) => way in EXCEPTIONS || way.endsWith(REVISIONS[revision]))) {
      await step(`through the tunnel, ${way}: ${revision}`, async () => {
        compare(way, revision, direct[revision], await ask(`${way}-${revision}`, `http://localhost:${proxy}/mcp/${way}`, revision));
      });
    }
  }
});
