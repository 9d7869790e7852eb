// The official conformance suite for servers: what it finds when the reference is asked directly, it must find through
// relay and agent too, check for check, whether the server behind the agent is on stdio or on HTTP.
// Usage: node conformance-server.mjs PROGRAM NODE22 [--report] [--bridged]
// With --report differences are told and nothing fails. With --bridged servers that know the other era alone are asked
// too, and what they lack is told. TUNNEL_REFERENCE names another build of the reference.
import assert from 'node:assert/strict';
import {resolve} from 'node:path';
import {reference, startReference, startTunnel} from './reference.mjs';
import {run, step} from './steps.mjs';
import {compare, conformance, count, findings, poor, startProxy} from './suite.mjs';

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

/** Runs the requirements of `revision` against `url`: what it found. */
const ask = async (name, url, revision) => {
  const suite = conformance(NODE22, name, ['server', '--url', url, '--requirements', revision]);
  await suite.exited;
  const found = findings(name, /^server-/);
  assert.ok(found.size > 50, `the suite made ${found.size} checks\n${suite.tail()}`);
  return found;
};

await run(async () => {
  const {url} = await startReference();
  const direct = {};
  for (const revision of Object.keys(REVISIONS)) {
    direct[revision] = await step(`directly: the reference passes all of ${revision}`, async () => {
      const found = await ask(`direct-${revision}`, url, revision);
      assert.deepEqual(poor(found), []);
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
        const through = await ask(`${way}-${revision}`, `http://localhost:${proxy}/mcp/${way}`, revision);
        compare(`${revision} over ${way}`, direct[revision], through, EXCEPTIONS[way] ?? {}, {lenient: REPORT || !(way in EXCEPTIONS)});
      });
    }
  }
});
