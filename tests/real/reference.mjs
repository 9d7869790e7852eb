// The tests' own MCP server, directly or behind a relay and an agent.
import {existsSync} from 'node:fs';
import {dirname, join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import {Process, output} from './processes.mjs';
import {Relay, home} from './relay.mjs';
import {until} from './steps.mjs';

/** The built tunnel-reference: what `TUNNEL_REFERENCE` says, or the one of this checkout's target directory. */
export const reference = () => {
  const target = resolve(dirname(fileURLToPath(import.meta.url)), '..', '..', process.env.CARGO_TARGET_DIR ?? 'target');
  const path = resolve(process.env.TUNNEL_REFERENCE ?? join(target, 'debug', 'tunnel-reference'));
  if (!existsSync(path)) throw new Error(`${path} is not there: cargo build -p tunnel-reference`);
  return path;
};

/** Starts it as an HTTP server: its process and its URL. */
export const startReference = async (...args) => {
  const server = new Process('reference', reference(), ['--http', '0', ...args]);
  const [url] = await server.line(/^http:\S+$/);
  return {server, url};
};

const USER = 'ada';
// Nobody signs in with a password here.
const AUTH = {local: {users: [{name: USER, passwordHash: '$argon2id$v=19$m=19456,t=2,p=1$0Fkrc3YA4AClYdYm25v2OA$AzTwgFi7zSd3yvB9DRmfOis35KP/Y6BNlh0DWUhok6g'}]}};

/** One that each session has a run of for itself sleeps until the first comes. */
const UP = ['ready', 'asleep'];

/** A relay of `program`, its address for clients, and how it mints a token of a role. */
export const startRelay = async (program) => {
  // Without a public URL it is this machine's alone: loopback names pass on any port, a proxy's too.
  const relay = await Relay.start(program, AUTH, {issuerUrl: undefined});
  relay.base = `http://localhost:${relay.port}`;
  const env = home(relay.name, {MCP_LOCAL_TUNNEL_CONFIG: JSON.stringify(relay.config)});
  const mint = async (role) => (await output(program, ['token', 'create', USER, '--role', role], {env})).trim();
  return {relay, mint};
};

/**
 * An agent of `program` with these servers on the relay at `base`, once they run, for which they have so many seconds.
 * With `lenient` servers that do not come up are left as they are.
 */
export const startAgent = async (program, base, token, servers, {name = 'desk', lenient = false, seconds = lenient ? 5 : 60} = {}) => {
  const config = JSON.stringify({mode: 'agent', relay: base, name, token: 'env:TUNNEL_TOKEN', servers});
  const env = home(`agent-${name}-at-${new URL(base).port}`, {MCP_LOCAL_TUNNEL_CONFIG: config, TUNNEL_TOKEN: token});
  const agent = new Process('agent', program, ['agent'], {env, stdio: ['ignore', 'pipe', 'pipe']});
  const ready = async () => {
    const status = JSON.parse(await output(program, ['status', '--json'], {env}));
    return status.servers?.length === Object.keys(servers).length && status.servers.every(({state}) => UP.includes(state));
  };
  await until('the servers run', seconds, ready).catch((error) => { if (!lenient) throw new Error(`${error.message}\n${agent.tail()}`); });
  return {agent, env};
};

/** A relay of `program` and an agent on it with these servers: the relay, the agent, and a token for a client. */
export const startTunnel = async (program, servers, options) => {
  const {relay, mint} = await startRelay(program);
  const {agent, env} = await startAgent(program, relay.base, await mint('agent'), servers, options);
  return {relay, agent, env, token: await mint('client')};
};
