// The official conformance suite for clients, without what is about sign-in: what it finds of a client that asks its
// server directly, it must find of the same client with relay and agent in between, check for check.
// Usage: node conformance-client.mjs PROGRAM NODE22 [--report]
// With --report differences are told and nothing fails.
import assert from 'node:assert/strict';
import {dirname, join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import {output} from './processes.mjs';
import {startRelay} from './reference.mjs';
import {run, step} from './steps.mjs';
import {SUITE, compare, conformance, count, findings, poor} from './suite.mjs';

const REPORT = process.argv.includes('--report');
const [PROGRAM, NODE22] = process.argv.slice(2).filter((argument) => !argument.startsWith('--')).map((path) => resolve(path));
const CHAIN = join(dirname(fileURLToPath(import.meta.url)), 'chain.mjs');

/**
 * Where the agent has much to do itself: through the tunnel also with the client that does not know the revision. Not
 * request-metadata, whose server takes the agent's trial of the older era for a poor request of the new one.
 */
const BRIDGED = [
  'elicitation-sep1034-client-defaults', 'sse-retry', 'sep-2322-client-request-state', 'http-standard-headers',
  'http-custom-headers', 'http-invalid-tool-headers', 'json-schema-2020-12-preservation',
];
/** Scenarios or checks that cannot be the same, by the way, each with the reason. One that is the same after all fails. */
const EXCEPTIONS = {
  through: {},
  bridged: {
    'http-standard-headers / sep-2243-client-includes-standard-headers / ClientMcpMethodHeader_initialize':
      'for a client of the older era a server is tried in that era first, and there no request has the field',
  },
};

/** Of what belongs to no revision the suite's server speaks both. */
const EXTENSION = ['2025-11-25', '2026-07-28'];

/** Every scenario that is not about sign-in (conformance.mjs has those), with its revisions. */
const scenarios = async () => {
  const listed = await output(NODE22, [SUITE, 'list', '--client']);
  return [...listed.matchAll(/^  - (\S+) \[(\S+)\]$/gm)]
    .map(([, name, revisions]) => ({name, isExtension: revisions === 'extension', revisions: revisions === 'extension' ? EXTENSION : revisions.split(',')}))
    .filter(({name}) => !name.startsWith('auth/'));
};

const WAYS = ['direct', 'through', 'bridged'];
const takesPart = (way, {name}) => way !== 'bridged' || BRIDGED.includes(name);

/** Runs one scenario with the client that `command` is, and returns whether that came to its end. The checks go to the directory `title`. */
const ask = async (title, command, {name, isExtension}, revision, env) => {
  const version = ['--spec-version', revision, ...isExtension ? ['--force'] : []];
  const suite = conformance(NODE22, title, ['client', '--command', command, '--scenario', name, ...version], env);
  await suite.exited;
  // The suite forgives a client that fails where it may refuse the server. This one knows how each scenario ends.
  const {lines} = suite;
  const saved = lines.findIndex((line) => line.startsWith('Results saved'));
  assert.ok(saved >= 0, suite.tail());
  const failed = lines.some((line) => /^Client (exited with code|timed out)/.test(line));
  const words = lines.slice(lines.indexOf('Stderr:') + 1, saved).join('\n      ');
  return {key: `${name} / the client / comes to its end`, scenario: name, statuses: [failed ? 'FAILURE' : 'SUCCESS'], said: new Set(failed ? [words] : [])};
};

/** Runs all scenarios in every way: how each client ended. */
const askAll = async (all) => {
  const {relay, mint} = await startRelay(PROGRAM);
  const env = {TUNNEL_BIN: PROGRAM, TUNNEL_AGENT_TOKEN: await mint('agent'), TUNNEL_CLIENT_TOKEN: await mint('client')};
  const through = `${CHAIN} --relay ${relay.base}`;
  const command = (way, revision) => ({
    direct: `${CHAIN} --direct`, through, bridged: `${through} --client ${revision < '2026' ? 'v2' : 'v1'}`,
  }[way]);
  const jobs = all.flatMap((scenario) => scenario.revisions.flatMap((revision) => WAYS
    .filter((way) => takesPart(way, scenario)).map((way) => ({scenario, revision, way}))));
  const ends = [];
  const work = async (jobs) => {
    for (let job; (job = jobs.shift());) {
      const {scenario, revision, way} = job;
      const end = await step(`${way}, ${revision}: ${scenario.name}`, () => ask(`${way}-${revision}`, command(way, revision), scenario, revision, env));
      ends.push({way, revision, ...end});
    }
  };
  // It measures times: before the processors are busy.
  const isTimed = ({scenario: {name}}) => name === 'sse-retry';
  await work(jobs.filter(isTimed));
  const others = jobs.filter((job) => !isTimed(job));
  await Promise.all([work(others), work(others), work(others)]);
  return ends;
};

/** What a client that asks directly is found to be: without a fault, and in no scenario without a check. */
const judge = (revision, names, direct) => step(`directly the client passes all of ${revision}`, () => {
  console.log(`# ${revision} directly: ${count(direct)}`);
  assert.deepEqual(poor(direct), []);
  const passed = [...findings(`direct-${revision}`).values()].filter(({statuses}) => statuses.includes('SUCCESS'));
  assert.deepEqual(names.filter((name) => !passed.some(({scenario}) => scenario === name)), [], 'nothing was checked');
});

await run(async () => {
  const all = await scenarios();
  assert.ok(all.length >= 15 && BRIDGED.every((known) => all.some(({name}) => name === known)), 'the suite has other scenarios');
  const ends = await askAll(all);
  const failures = [];
  for (const revision of new Set(all.flatMap(({revisions}) => revisions))) {
    const names = (way) => all.filter((one) => one.revisions.includes(revision) && takesPart(way, one)).map(({name}) => name);
    const found = (way) => new Map([
      ...findings(`${way}-${revision}`),
      ...ends.filter((end) => end.way === way && end.revision === revision).map(({key, ...end}) => [key, end]),
    ]);
    const direct = found('direct');
    await judge(revision, names('direct'), direct);
    for (const way of ['through', 'bridged'].filter((way) => names(way).length > 0)) {
      const same = new Map([...direct].filter(([, {scenario}]) => names(way).includes(scenario)));
      await step(`${way}, ${revision}: the same`, () => compare(`${way}, ${revision}`, same, found(way), EXCEPTIONS[way], {lenient: REPORT}))
        .catch((error) => failures.push(error));
    }
  }
  // Every difference is told before the first one fails.
  if (failures.length > 0) throw failures[0];
});
