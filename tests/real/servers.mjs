// Real servers behind one relay and one agent, asked by clients that others wrote: each must see through the tunnel
// what it sees of a server that it starts itself.
// Usage: node servers.mjs PROGRAM PYTHON [--report]    (PYTHON: one with what requirements.txt names)
// With --report all differences are told, and nothing fails.
import assert from 'node:assert/strict';
import {existsSync, mkdirSync, writeFileSync} from 'node:fs';
import http from 'node:http';
import {dirname, join, resolve} from 'node:path';
import {fileURLToPath} from 'node:url';
import {asListed} from './listed.mjs';
import {output} from './processes.mjs';
import {startTunnel} from './reference.mjs';
import {run, scratch, step} from './steps.mjs';
import {MODERN, allEnded, startClients} from './views.mjs';

const REPORT = process.argv.includes('--report');
const [PROGRAM, PYTHON] = process.argv.slice(2).filter((argument) => argument !== '--report').map((path) => resolve(path));
const here = dirname(fileURLToPath(import.meta.url));
const node = (...path) => [process.execPath, join(here, 'node_modules', ...path)];
const official = (name, ...args) => [...node('@modelcontextprotocol', name, 'dist', 'index.js'), ...args];
const python = (name, ...args) => [PYTHON, '-m', name, ...args];
const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser'].find((path) => existsSync(path));
/** Servers that are looked at side by side: for each processor, and while some wait. */
const LANES = 3;

const FILES = join(scratch, 'files');
const REPOSITORY = join(scratch, 'repository');
const HELLO = join(FILES, 'hello.txt');
const ROOTS = [{uri: `file://${FILES}`, name: 'files'}];

/** A page on this machine: the only one that any of the servers opens. */
const startPage = async () => {
  const server = http.createServer((_request, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><html><head><title>A page</title></head><body><article><h1>Tunnels</h1><p>Some are long.</p></article></body></html>');
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  return `http://127.0.0.1:${server.address().port}/`;
};

/** Chromium reaches loopback by its number, and no name at all. */
const browserConfig = () => {
  const path = join(scratch, 'playwright.json');
  const launchOptions = {executablePath: CHROMIUM, headless: true, chromiumSandbox: false, args: ['--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1']};
  writeFileSync(path, JSON.stringify({browser: {browserName: 'chromium', isolated: true, launchOptions}}));
  return path;
};

/**
 * Every server with calls that have one right answer; the first of them is made among all servers, too. `modern`: it
 * speaks both eras, else the old one; `has`: lists besides that of tools for whom each one costs a process; `late`: a
 * tool that it lists a moment after its start; `asking`: tools that it lists for clients that it may ask something;
 * `after`: calls that end what the others began.
 */
const servers = (page) => {
  const all = {
    everything: {
      command: official('server-everything', 'stdio'), late: 'get-roots-list', asking: ['trigger-elicitation-request', 'trigger-sampling-request', 'trigger-url-elicitation'],
      has: ['prompts/list', 'resources/list'],
      calls: [['echo', {message: 'héllo ✓'}], ['get-structured-content', {location: 'Chicago'}]],
    },
    files: {
      command: official('server-filesystem', FILES),
      // The second is refused by the server: an error in band.
      calls: [['read_text_file', {path: HELLO}], ['read_text_file', {path: '/etc/hostname'}]],
    },
    memory: {
      command: official('server-memory'), has: ['resources/list'],
      calls: [
        // The one behind the tunnel remembers the client before.
        ['delete_entities', {entityNames: ['tunnel']}],
        ['create_entities', {entities: [{name: 'tunnel', entityType: 'thing', observations: ['is long']}]}],
        ['read_graph', {}],
      ],
    },
    thinking: {
      command: official('server-sequential-thinking'),
      calls: [['sequentialthinking', {thought: 'Tunnels have two ends.', thoughtNumber: 1, totalThoughts: 1, nextThoughtNeeded: false}]],
    },
    browser: {
      // Without snapshots in every answer, which are in files named by the time.
      command: [...node('@playwright', 'mcp', 'cli.js'), '--snapshot-mode', 'none', '--config', browserConfig()],
      calls: [['browser_navigate', {url: page}], ['browser_snapshot', {}]],
      // For the next client: what is said of a page depends on what was open before.
      after: [['browser_close', {}]],
    },
    // Any real action ends it where there is no display: one that its schema refuses.
    computer: {command: node('computer-use-mcp', 'dist', 'main.js'), calls: [['computer', {action: 'no such action'}]]},
    editor: {
      command: node('filesystem-mcp', 'dist', 'main.js'),
      calls: [['view', {path: HELLO}], ['str_replace', {path: HELLO, old_str: 'not there', new_str: ''}]],
    },
    git: {
      command: python('mcp_server_git', '--repository', REPOSITORY), modern: true,
      calls: [['git_status', {repo_path: REPOSITORY}], ['git_log', {repo_path: REPOSITORY}]],
    },
    time: {
      command: python('mcp_server_time', '--local-timezone', 'UTC'), modern: true,
      calls: [['convert_time', {source_timezone: 'UTC', time: '12:00', target_timezone: 'Asia/Tokyo'}]],
    },
    fetch: {
      command: python('mcp_server_fetch', '--allow-private-ips', '--ignore-robots-txt'), modern: true, has: ['prompts/list'],
      calls: [['fetch', {url: page, raw: true}], ['fetch', {url: page, raw: true, max_length: 20}]],
    },
  };
  if (!CHROMIUM) {
    console.log('# SKIPPED @playwright/mcp: there is no chromium; .ci/run installs it');
    delete all.browser;
  }
  return all;
};

/** Where a server runs, and all that it finds there of the machine: one of its own, in the tunnel or for one client. */
const place = (name) => {
  const cwd = join(scratch, 'places', name);
  mkdirSync(cwd, {recursive: true});
  return {cwd, env: {HOME: cwd, PATH: process.env.PATH, NO_PROXY: '*', MEMORY_FILE_PATH: join(cwd, 'memory.jsonl')}};
};

const differences = [];
const same = (what, through, expected) => {
  try {
    assert.deepEqual(through, expected);
  } catch (error) {
    if (!REPORT) throw error;
    differences.push(what);
    console.log(`# ${what}\n${error.message}`);
  }
};

/** How often the server that counts thoughts was called behind the tunnel: it is one process for all clients. */
let thoughts = 0;
const counted = ({content: [{type, text}], structuredContent, ...rest}) => ({
  ...rest,
  content: [{type, text: text.replace(/("thoughtHistoryLength": )\d+/, (_, before) => `${before}${thoughts}`)}],
  structuredContent: {...structuredContent, thoughtHistoryLength: thoughts},
});

/**
 * What a client must see through the tunnel: what it sees directly, but for what is here. `bridged`: it speaks the new
 * era with the tunnel, which speaks the old one with the server.
 */
const expected = (direct, client, server, bridged) => {
  const expected = structuredClone(direct);
  const pages = Object.values(expected.lists).filter(Array.isArray).flat();
  if (server === 'thinking') expected.results = expected.results.map(counted);
  if (!bridged) return expected;
  expected.version = MODERN;
  if (client.assumes) expected.about = null;
  // Every result has a type, and lists say how long they may be kept, which is for nobody to know here.
  for (const page of pages) Object.assign(page, {ttlMs: 0, cacheScope: 'private'});
  const results = expected.results.filter(({error}) => !error);
  if (!client.hides) for (const result of [...pages, ...results]) result.resultType = 'complete';
  // Tasks are an extension there: this client takes away what they were before.
  if (client.hides) {
    for (const tool of pages.flatMap(({tools}) => tools ?? [])) delete tool.execution;
    delete expected.about.capabilities.tasks;
  }
  return expected;
};

/**
 * A server that is shared is started by the agent, which lets itself be asked anything in the name of its clients; so
 * a client that does not sees tools that its own server would not list. All of them must be there.
 */
const without = (asking, view) => {
  const of = (page) => page.tools.filter(({name}) => asking.includes(name)).map(({name}) => name);
  assert.deepEqual(view.lists['tools/list'].flatMap(of).sort(), asking);
  const lists = {...view.lists, 'tools/list': view.lists['tools/list'].map((page) => ({...page, tools: page.tools.filter(({name}) => !asking.includes(name))}))};
  return {...view, lists};
};

/** What a client sees of its own server; and of the one behind the tunnel, compared. */
const compare = async (client, name, server, {command, modern, asking = [], ...all}, directs, tunnel) => {
  const what = {...all, calls: client.brief ? all.calls.slice(0, 1) : all.calls};
  const {view, twin, pinned} = client;
  // A client that speaks the new era alone cannot ask one that does not.
  const direct = pinned && !modern ? undefined : await view({command, ...place(`${name}-${server}`)}, what);
  directs[name] = direct;
  if (twin && direct) assert.equal(direct.version === MODERN, modern === true, 'the eras that it speaks');
  const bridged = twin && !(modern && tunnel.takesForModern(server));
  thoughts += server === 'thinking' ? 1 : 0;
  const through = await view({url: `${tunnel.relay.base}/mcp/${server}`, token: tunnel.token}, what);
  const shown = client.poor ? without(asking, through) : through;
  same(`${name}: ${server}`, shown, expected(bridged ? directs[twin] : direct, client, server, bridged));
  return through;
};

/** The same clients on the endpoint of all servers, of which `alone` is what each saw by itself. */
const among = async (name, client, all, alone, tunnel) => {
  const names = Object.keys(all);
  const named = (server, [tool, args]) => [`${server}__${tool}`, args];
  const calls = names.map((server) => named(server, all[server].calls[0]));
  const after = names.flatMap((server) => (all[server].after ?? []).map((call) => named(server, call)));
  const {lists, results} = await client.view({url: `${tunnel.relay.base}/mcp`, token: tunnel.token}, {calls, after});
  const listed = new Map(lists['tools/list'].flatMap(({tools}) => tools).map((tool) => [tool.name, tool]));
  for (const server of names) {
    for (const tool of alone[server].lists['tools/list'].flatMap(({tools}) => tools)) {
      const full = `${server}__${tool.name}`;
      assert.ok(listed.has(full), `${full} among ${[...listed.keys()]}`);
      same(`${name}: ${full}`, listed.get(full), asListed(tool, full, server, listed.get(full)));
      listed.delete(full);
    }
  }
  assert.deepEqual([...listed.keys()].sort(), ['restart', 'status'], 'nothing else is listed');
  thoughts += 1;
  same(`${name} among all servers`, results.slice(0, names.length), names.map((server) => {
    const [result] = alone[server].results;
    return server === 'thinking' ? counted(result) : result;
  }));
};

const matrix = async (all, clients, tunnel) => {
  const alone = Object.fromEntries(Object.keys(clients).map((name) => [name, {}]));
  const waiting = Object.entries(all);
  await Promise.all(Array.from({length: LANES}, async () => {
    for (let next; (next = waiting.shift());) {
      const [[server, what], directs] = [next, {}];
      for (const [name, client] of Object.entries(clients)) {
        await step(`${name} with ${server}`, async () => {
          alone[name][server] = await compare(client, name, server, what, directs, tunnel);
        });
      }
    }
  }));
  for (const [name, client] of Object.entries(clients)) await step(`${name} among all servers`, () => among(name, client, all, alone[name], tunnel));
};

await run(async () => {
  for (const directory of [FILES, REPOSITORY]) mkdirSync(directory);
  writeFileSync(HELLO, 'hello from the desk\n');
  const git = (...args) => output('git', ['-C', REPOSITORY, '-c', 'user.name=Ada', '-c', 'user.email=ada@example.org', ...args], {env: place('git-setup').env});
  await git('init', '--quiet');
  await git('commit', '--quiet', '--allow-empty', '--message', 'the first');
  const all = servers(await startPage());
  const entries = Object.entries(all).map(([name, {command}]) => [name, {command, ...place(`tunnel-${name}`)}]);
  const tunnel = await step('relay and agent run', () => startTunnel(PROGRAM, Object.fromEntries(entries)));
  /** The agent gives each twenty seconds to say that it speaks the new era: on a machine that is too slow it does not. */
  tunnel.takesForModern = (server) => {
    const older = tunnel.agent.lines.some((line) => line.includes('spoken to with an older one') && line.includes(`server="${server}"`));
    if (older) console.log(`# SLOW: ${server} took very long to start, and is spoken to as one of the old era alone`);
    return !older;
  };
  const {clients, end} = startClients(PYTHON, ROOTS);

  try {
    await matrix(all, clients, tunnel);
  } finally {
    end();
    await allEnded();
  }
  console.log(`# ${differences.length} differences`);
});
