// What clients that others wrote see of a server: what it says of itself, its lists page by page, the results of calls.
// Each client is asked the same about a server on stdio of its own and about an endpoint of a relay.
import {dirname, join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {Client as Client2, StreamableHTTPClientTransport as HttpTransport2} from '@modelcontextprotocol/client';
import {StdioClientTransport as StdioTransport2} from '@modelcontextprotocol/client/stdio';
import {Client as Client1} from '@modelcontextprotocol/sdk/client/index.js';
import {StdioClientTransport as StdioTransport1} from '@modelcontextprotocol/sdk/client/stdio.js';
import {StreamableHTTPClientTransport as HttpTransport1} from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import {ListRootsRequestSchema} from '@modelcontextprotocol/sdk/types.js';
import {Process, output} from './processes.mjs';
import {home} from './relay.mjs';
import {until} from './steps.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const NODE22 = join(here, 'node_modules', 'node', 'bin', 'node');
const INSPECTOR = join(here, 'node_modules', '@modelcontextprotocol', 'inspector', 'clients', 'cli', 'build', 'index.js');
export const MODERN = '2026-07-28';
/** What an agent declares to its servers: some have tools for such clients alone. */
const CAPABILITIES = {roots: {listChanged: true}, sampling: {context: {}, tools: {}}, elicitation: {form: {}, url: {}}};
const LISTS = {'tools/list': 'listTools', 'prompts/list': 'listPrompts', 'resources/list': 'listResources', 'resources/templates/list': 'listResourceTemplates'};

const attempt = (run) => run().catch(({code, message, data}) => ({error: {code, message, data}}));

const pages = async (list) => {
  const all = [];
  for (let cursor; ;) {
    const page = await list(cursor === undefined ? undefined : {cursor});
    all.push(page);
    cursor = page.nextCursor;
    if (cursor === undefined) return all;
  }
};

/** Both generations of the TypeScript client have these methods. `late`: a tool that is listed some time after the start. */
const look = async (client, version, {calls, after = [], late}) => {
  if (late) await until(`${late} is listed`, 30, async () => (await client.listTools()).tools.some(({name}) => name === late));
  const lists = {};
  for (const [method, name] of Object.entries(LISTS)) lists[method] = await attempt(() => pages((params) => client[name](params)));
  const results = [];
  for (const [name, args] of [...calls, ...after]) results.push(await attempt(() => client.callTool({name, arguments: args})));
  const about = {info: client.getServerVersion(), capabilities: client.getServerCapabilities(), instructions: client.getInstructions()};
  return {version, about, lists, results};
};

const endpoint = (Transport, {url, token}) => new Transport(new URL(url), {requestInit: {headers: {authorization: `Bearer ${token}`}}});
const child = (Transport, {command: [command, ...args], env, cwd}) => new Transport({command, args, env, cwd, stderr: 'ignore'});
const transport = (Http, Stdio, target) => (target.url ? endpoint(Http, target) : child(Stdio, target));

/** Ends of clients and their servers, which some take their time for: awaited at the end of the test. */
const endings = [];
export const allEnded = () => Promise.all(endings);

const typescript1 = (roots) => async (target, what) => {
  const client = new Client1({name: 'typescript', version: '1'}, {capabilities: CAPABILITIES});
  client.setRequestHandler(ListRootsRequestSchema, () => ({roots}));
  const connection = transport(HttpTransport1, StdioTransport1, target);
  // The client tells its transport, and nobody else, what was negotiated.
  const tell = connection.setProtocolVersion?.bind(connection);
  let version;
  connection.setProtocolVersion = (negotiated) => {
    version = negotiated;
    tell?.(negotiated);
  };
  try {
    await client.connect(connection);
    return await look(client, version, what);
  } finally {
    endings.push(client.close());
  }
};

/** It refuses by itself to ask for what a server does not declare; otherwise it would make an answer up. */
const typescript2 = (roots, mode) => async (target, what) => {
  const client = new Client2({name: 'typescript', version: '2'}, {capabilities: CAPABILITIES, versionNegotiation: {mode}, enforceStrictCapabilities: true});
  client.setRequestHandler('roots/list', () => ({roots}));
  try {
    await client.connect(transport(HttpTransport2, StdioTransport2, target));
    return await look(client, client.getNegotiatedProtocolVersion(), what);
  } finally {
    endings.push(client.close());
  }
};

/** One process for all that is asked of the Python client. */
const python = (program, roots) => {
  const views = new Process('views.py', program, [join(here, 'views.py')]);
  endings.push(views.exited);
  let asked = 0;
  const ask = (mode) => async (target, what) => {
    const id = asked += 1;
    views.say({id, mode, roots, ...target, ...what});
    const [line] = await views.line(new RegExp(`^\\{"id": ${id},.*`));
    const {view, failed} = JSON.parse(line);
    if (!view) throw new Error(`${failed}\n${views.tail()}`);
    return view;
  };
  return {ask, end: () => views.child.stdin.end()};
};

/** It ends with 5 over an error in band. */
const TOLD = [0, 5];

/** The Inspector's command line: a process for each question, so that all is asked at once. */
const inspector = async (target, {calls, has = [], after = []}) => {
  const server = target.url
    ? ['--server-url', target.url, '--transport', 'http', '--header', `Authorization: Bearer ${target.token}`]
    : ['--cwd', target.cwd, ...Object.entries(target.env).flatMap(([name, value]) => ['-e', `${name}=${value}`]), '--', ...target.command];
  const ask = async (...question) => JSON.parse(await output(NODE22, [INSPECTOR, '--format', 'json', '--quiet', '--connect-timeout', '60000', ...question, ...server], {env: home('inspector')}, TOLD));
  const list = async (method) => [method, [(await ask('--method', method)).result]];
  const call = async ([name, args]) => (await ask('--method', 'tools/call', '--tool-name', name, '--tool-args-json', JSON.stringify(args))).result;
  const [lists, results] = await Promise.all([Promise.all(['tools/list', ...has].map(list)), Promise.all(calls.map(call))]);
  for (const one of after) results.push(await call(one));
  return {lists: Object.fromEntries(lists), results};
};

/**
 * All clients, each with `view`, and `end` for when nothing more is asked.
 * `twin`: it speaks the new era where it can; the same client in that mode does not, so that it sees directly what this
 * one must see of a server of the old era. `pinned`: it speaks nothing else. `hides`: in the new era it shows neither
 * results' types nor what that era has not. `assumes`: it asks no server what it is. `poor`: it declares no sampling
 * and no elicitation. `brief`: it is asked for less, since everything costs it a process.
 */
export const startClients = (pythonProgram, roots) => {
  const {ask, end} = python(pythonProgram, roots);
  const clients = {
    'typescript v1': {view: typescript1(roots)},
    'typescript v2 legacy': {view: typescript2(roots, 'legacy')},
    'typescript v2 auto': {view: typescript2(roots, 'auto'), twin: 'typescript v2 legacy', hides: true},
    'typescript v2 pinned': {view: typescript2(roots, {pin: MODERN}), twin: 'typescript v2 legacy', pinned: true, hides: true},
    'python legacy': {view: ask('legacy')},
    'python auto': {view: ask('auto'), twin: 'python legacy'},
    'python pinned': {view: ask(MODERN), twin: 'python legacy', pinned: true, assumes: true},
    inspector: {view: inspector, poor: true, brief: true},
  };
  return {clients, end};
};
