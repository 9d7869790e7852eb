// Scripted sessions of the TypeScript and the Python client, directly and through relay and agent, with servers of
// either era: every combination must do the same.
// Usage: node sessions.mjs PROGRAM PYTHON [--report]
// With --report all steps are tried, what failed is told, and nothing fails.
import {dirname, join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import {Process} from './processes.mjs';
import {reference, startReference, startTunnel} from './reference.mjs';
import {run, step, until} from './steps.mjs';

const REPORT = process.argv.includes('--report');
const [PROGRAM, PYTHON] = process.argv.slice(2).filter((argument) => argument !== '--report').map((path) => resolve(path));
const here = dirname(fileURLToPath(import.meta.url));
const EVERYTHING = [process.execPath, join(here, 'node_modules', '@modelcontextprotocol', 'server-everything', 'dist', 'index.js'), 'stdio'];

/** Each client with the eras that it speaks. */
const CLIENTS = {
  'typescript v1': {command: [process.execPath, join(here, 'session.mjs')], eras: ['legacy']},
  'python legacy': {command: [PYTHON, join(here, 'session.py')], mode: 'legacy', eras: ['legacy']},
  'python auto': {command: [PYTHON, join(here, 'session.py')], mode: 'auto', eras: ['legacy', 'modern']},
  'python 2026-07-28': {command: [PYTHON, join(here, 'session.py')], mode: '2026-07-28', eras: ['modern']},
};
/** The servers that anybody can start, each with the eras that it speaks. */
const SERVERS = {
  'both': {kind: 'reference', command: () => [reference(), '--page', '7'], eras: ['legacy', 'modern']},
  'legacy': {kind: 'reference', command: () => [reference(), '--era', 'legacy'], eras: ['legacy']},
  'modern': {kind: 'reference', command: () => [reference(), '--era', 'modern'], eras: ['modern']},
  'everything': {kind: 'everything', command: () => EVERYTHING, eras: ['legacy']},
};
const ON_HTTP = ['both', 'legacy', 'modern'];
const eraOf = ({eras}) => (eras.length > 1 ? 'both' : eras[0]);

const failures = [];

/** One session; `during` is told of its process. */
const session = (title, client, server, args, during = () => {}) => step(title, async () => {
  const {command: [program, ...more], mode} = CLIENTS[client];
  const {kind} = SERVERS[server];
  const options = ['--server-era', eraOf(SERVERS[server]), ...REPORT ? ['--report'] : []];
  const env = {...process.env, ...REPORT ? {TUNNEL_PATIENCE: '4'} : {}};
  const split = args.includes('--') ? args.indexOf('--') : args.length;
  const script = new Process(title, program, [...more, kind, ...mode ? [mode] : [], ...args.slice(0, split), ...options, ...args.slice(split)], {env});
  await during(script);
  const {code} = await script.exited;
  const end = script.lines.findLast((line) => /^\d+ passed, \d+ failed/.test(line)) ?? `ended with ${code}`;
  const poor = script.lines.filter((line) => line.startsWith('not ok'));
  console.log([`# ${title}: ${end}`, ...poor.map((line) => `#   ${line}`)].join('\n'));
  if (code === 0) return;
  failures.push([title, ...poor].join(': '));
  if (!REPORT) console.log(script.tail());
});

const shared = (client, server) => CLIENTS[client].eras.some((era) => SERVERS[server].eras.includes(era));

/** Runs each list of jobs in order, the lists side by side: each has a server of its own. */
const lanes = (all) => Promise.all(all.map(async (jobs) => {
  for (const job of jobs) await job();
}));

const directly = async () => {
  const {url} = await startReference();
  const jobs = Object.keys(SERVERS).map((server) => Object.keys(CLIENTS)
    .filter((client) => shared(client, server))
    .map((client) => () => session(`directly: ${client}, ${server} on stdio`, client, server, ['--', ...SERVERS[server].command()])));
  await lanes([...jobs, Object.keys(CLIENTS).map((client) => () => session(`directly: ${client}, both on HTTP`, client, 'both', [url]))]);
};

const throughTunnel = async () => {
  const urls = {};
  for (const server of ON_HTTP) urls[server] = (await startReference(...SERVERS[server].command().slice(1))).url;
  const stdio = Object.keys(SERVERS).map((server) => [`${server}-stdio`, {command: SERVERS[server].command()}]);
  const http = ON_HTTP.map((server) => [`${server}-http`, {url: urls[server]}]);
  const alone = ['both-alone', {command: SERVERS.both.command(), isolation: 'session'}];
  const all = [...stdio, ...http, alone];
  const tunnel = await startTunnel(PROGRAM, Object.fromEntries(all), {lenient: REPORT});
  const jobs = all.map(([name]) => Object.keys(CLIENTS).map((client) => () => {
    const args = [`${tunnel.relay.base}/mcp/${name}`, '--token', tunnel.token, ...name.endsWith('-stdio') ? ['--shared'] : []];
    return session(`through the tunnel: ${client}, ${name}`, client, name.replace(/-\w+$/, ''), args);
  }));
  await lanes(jobs);
};

const among = async () => {
  const tunnel = await startTunnel(PROGRAM, {reference: {command: SERVERS.both.command()}}, {lenient: REPORT});
  const args = [`${tunnel.relay.base}/mcp`, '--token', tunnel.token, '--prefix', 'reference__', '--shared'];
  for (const client of Object.keys(CLIENTS)) await session(`among all servers: ${client}, both on stdio`, client, 'both', args);
  await session('the relay is killed in the middle of a session', 'typescript v1', 'both', [...args, '--halfway'], async (script) => {
    await script.line(/^halfway$/);
    await tunnel.relay.process.kill('SIGKILL');
    await tunnel.relay.run();
    await until('the agent is back', 40, async () => {
      const headers = {'content-type': 'application/json', accept: 'application/json, text/event-stream', authorization: `Bearer ${tunnel.token}`};
      const body = JSON.stringify({jsonrpc: '2.0', id: 1, method: 'initialize', params: {protocolVersion: '2025-06-18', capabilities: {}, clientInfo: {name: 'scout', version: '1'}}});
      const answer = await fetch(`${tunnel.relay.base}/mcp/reference`, {method: 'POST', headers, body});
      return answer.ok;
    });
    script.child.stdin.write('go\n');
  });
};

await run(async () => {
  await directly();
  await throughTunnel();
  await among();
  console.log(`# ${failures.length} sessions failed`);
  if (!REPORT && failures.length > 0) throw new Error(`sessions that failed:\n${failures.join('\n')}`);
});
